"""Array types, random keys, catalogue, errors, mapping over members and devices, storage."""
