"""What the backends of this process share: tickets, the agenda of what is due, and pools."""
