"""Front ends of this host: `service` serves their socket, `stdio_client` joins a launcher with the nodes of its step."""
