"""Whether a change leaves outputs as they are: twelve models through every stage, and what differs in words."""
