"""The results for readers: the HTML page, the terminal, Markdown and JUnit."""
