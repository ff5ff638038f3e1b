"""How it is told: the page, the terminal, Markdown and JUnit."""
