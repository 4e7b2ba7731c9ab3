"""From an actor's steps to the windows that replay keeps."""
