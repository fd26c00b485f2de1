package status

// Watchers returns how many streams and waits there are.
func Watchers(h *Handler) int64 { return h.watchers.Load() }
