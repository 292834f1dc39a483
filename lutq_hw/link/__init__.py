"""The host side of the link. Imports neither Amaranth nor pyserial until they are used."""
