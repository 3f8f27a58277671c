"""The gateway: HTTP doors to the mesh, the OpenAI one first."""
