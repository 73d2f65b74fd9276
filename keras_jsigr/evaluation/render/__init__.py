"""What people look at: a report as text, HTML, Markdown and a picture."""
