package balancer

// An Error says why a backend could not be reached, or didn't answer to the end.
type Error struct {
	Backend string // the backend's ID
	Sent    bool   // bytes of the request may have been sent; false: none was
	Err     error  // the cause, such as ErrLost or an error of the network

	// Invalid says that no backend would do better: the request can't be sent as it
	// is, its body failed, or the Transport's options make no sense. If it is false the
	// backend, or the way to it, is at fault, whatever type Err has, unless the
	// request's context has ended.
	Invalid bool
}

// Error returns the cause, with the backend's ID and whether the request was sent.
func (e *Error) Error() string {
	sent := "not sent"
	if e.Sent {
		sent = "sent"
	}
	return "balancer: backend " + e.Backend + ", request " + sent + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }
