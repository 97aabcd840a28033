"""Requests and answers as clients write and read them."""
