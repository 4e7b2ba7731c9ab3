"""Writers: make windows for replay from an actor's steps."""
