package balancer

// An Error says that a backend could not be reached, or didn't answer to the end.
type Error struct {
	Backend string // its ID
	Sent    bool   // bytes of the request may have gone out; false: surely none have
	Err     error  // what went wrong, ErrLost or what the network said

	// Invalid says that no backend would do better: the request can't be sent, or
	// its body failed, or the Transport is set wrongly. All else is the backend's
	// fault or that of the way to it, whatever type Err has, but for the end of the
	// request's context.
	Invalid bool
}

// Error names the backend, and tells how far the request came.
func (e *Error) Error() string {
	sent := "not sent"
	if e.Sent {
		sent = "sent"
	}
	return "balancer: backend " + e.Backend + ", request " + sent + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }
