"""Pages of three networks in a browser: no error and no request, sorting, links, blocks, colours; and pictures."""

import pytest

from support.page_runs import NETWORKS

WIDTHS, SCHEMES = (400, 1280), ("light", "dark")
#: The least contrast of text and ground by WCAG 2 (AA).
CONTRAST = 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_opens_and_fits(opened, pictures, name, width, scheme):
    with opened(name, width, scheme) as page:
        page.screenshot(path=pictures / f"{name}_{width}_{scheme}.png", full_page=True)
        widest = page.evaluate("document.documentElement.scrollWidth")
        assert widest == width, "something is wider than the window"
        cut = page.evaluate(
            "[...document.querySelectorAll('td, th, .name, .kind, .tiles dd')]"
            ".filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.textContent)"
        )
        assert cut == [], "something is wider than its place"


@pytest.mark.parametrize("name", NETWORKS)
def test_it_prints(opened, pictures, name):
    with opened(name) as page:
        path = pictures / f"{name}.pdf"
        page.pdf(path=path, format="A4", margin=dict.fromkeys(("top", "bottom", "left", "right"), "12mm"))
        assert path.read_bytes().startswith(b"%PDF") and path.stat().st_size > 20_000


@pytest.mark.parametrize("name", NETWORKS)
def test_a_click_on_a_title_sorts(opened, name):
    values = "[...document.querySelectorAll('#t-layers tbody tr')].map(row => row.cells[3].dataset.v ?? null)"
    with opened(name) as page:
        before = page.evaluate(values)
        for order in ("descending", "ascending"):
            page.click("#t-layers thead >> text=activations >> nth=0")
            assert page.get_attribute("#t-layers thead th:nth-child(4)", "aria-sort") == order
            found = page.evaluate(values)
            numbers = [float(value) for value in found if value is not None]
            assert numbers == sorted(numbers, reverse=order == "descending") and len(set(numbers)) > 3
            assert found[len(numbers) :] == [None] * (len(found) - len(numbers)), "what has no value is last"
        assert sorted(map(str, found)) == sorted(map(str, before))
        page.click("#t-layers thead >> text=module")
        names = page.evaluate("[...document.querySelectorAll('#t-layers tbody th')].map(cell => cell.textContent)")
        assert names == page.evaluate(
            "names => [...names].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))", names
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_links_lead_from_modules_to_kernels_and_back_and_into_the_graph(opened, name):
    with opened(name, 400) as page:
        link = page.locator("#t-layers a.k").last
        kernel = link.get_attribute("href")
        row = link.evaluate("link => link.closest('tr').id")
        link.click()
        assert page.evaluate("location.hash") == kernel
        assert page.locator(kernel).is_visible(), "what the link leads into is opened"
        page.locator(f"{kernel} a[href='#{row}']").click()
        assert page.evaluate("location.hash") == f"#{row}" and page.locator(f"#{row}").is_visible()
        module = page.locator("#t-layers tbody th a").last  # one that stands in the graph
        place = module.get_attribute("href")
        module.click()
        assert page.evaluate("location.hash") == place and page.locator(place).is_visible()


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_fold_and_edges_follow(opened, name):
    shown = (
        "[...document.querySelectorAll('#graph .row')].filter(row => row.checkVisibility())"
        ".map(row => row.querySelector('path')?.getAttribute('d') ?? null)"
    )
    with opened(name) as page:
        counts = {}
        for button in ("All modules", "Blocks"):
            page.click(f"text={button}")
            edges = page.evaluate(shown)
            assert None not in edges, "every line has its edges drawn"
            assert sum(bool(edge) for edge in edges) > 0.8 * len(edges)
            counts[button] = len(edges)
        nodes = page.evaluate("document.querySelectorAll('#graph [data-n]').length")
        assert counts["Blocks"] < nodes < counts["All modules"]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_point_of_the_frontier_tells_its_decision_and_leads_to_its_line(opened, width):
    with opened("resnet18", width) as page:
        dots = page.locator("svg.frontier a")
        for at in range(dots.count()):
            dot = dots.nth(at)
            dot.hover()
            assert dot.evaluate("dot => dot.matches(':hover')"), "nothing lies over it"
            decision = dot.locator("title").text_content().splitlines()[0]
            line = dot.get_attribute("href")
            dot.click()
            assert page.locator(line).is_visible() and page.inner_text(f"{line} th") == decision
        assert dots.count() == 4


@pytest.mark.parametrize("name", NETWORKS)
def test_two_engines_stand_side_by_side(opened, name):
    with opened(name) as page:
        titles = page.locator("#t-totals thead th").all_inner_texts()
        assert titles[1:3] == [f"{name}_fp16.onnx", f"{name}_int8.onnx"]
        first, second = (page.locator(f"#t-totals tbody tr:first-child td:nth-child({at})") for at in (2, 3))
        assert first.bounding_box()["y"] == second.bounding_box()["y"]
        assert first.bounding_box()["x"] < second.bounding_box()["x"]
        if not page.locator("#t-compared").is_visible():  # there are many modules
            page.click("text=Module by module")
        page.locator("#t-compared tbody th a").first.click()
        assert page.locator(page.evaluate("location.hash")).is_visible()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_stands_out_from_its_ground(opened, scheme):
    with opened("resnet18", scheme=scheme) as page:
        ratios = page.evaluate(
            """() => {
              const style = getComputedStyle(document.documentElement), probe = document.createElement("i");
              document.body.append(probe);
              const light = name => {
                probe.style.color = style.getPropertyValue(name);
                const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
                const [r, g, b] = parts.map(p => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const found = {};
              for (const ground of ["--ground", "--raised"])
                for (const name of ["text", "soft", "accent", "int4", "int8", "fp8", "int16", "half", "full", "other",
                                    "error", "warning", "info"]) {
                  const [dark, bright] = [light(ground), light("--" + name)].sort((a, b) => a - b);
                  found[name + ground] = (bright + 0.05) / (dark + 0.05);
                }
              return found;
            }"""
        )
    assert {name: ratio for name, ratio in ratios.items() if ratio < CONTRAST} == {}


def test_names_do_no_harm(opened):
    with opened("evil") as page:
        assert page.title() == "harmless" and "<script>" in page.inner_text("#t-layers")
        assert page.locator("main img, main script").count() == 0


def test_without_scripts_it_can_be_read(opened):
    with opened("resnet18", scripts=False) as page:
        assert page.locator("#graph .row").first.is_visible() and page.locator("#t-layers tbody tr").count() > 20
