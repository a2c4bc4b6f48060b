"""What a user asks for: `options` of the command line and of a script (`batch_script`), their values, and the `requests` made of them."""
