"""The HTTP endpoints, one file a family; each offers `routes(api) -> list[Route]`."""
