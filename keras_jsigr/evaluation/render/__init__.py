"""What people look at: a report as words, HTML, Markdown and a picture."""
