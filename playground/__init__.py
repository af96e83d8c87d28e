"""The built-in miniature; downloaded data goes here as well."""
