"""What rewards are asked, what they may answer, and one total of it per completion. Pure."""
