package redisclient

import "sync/atomic"

// A Payload is an argument of a command that knows whether it was sent. It is for one
// attempt: a command that fails before any of its payload was written, because no
// connection could be made for example, hasn't been carried out.
type Payload struct {
	data []byte
	sent atomic.Bool
}

// NewPayload returns an argument with some bytes, which it doesn't copy.
func NewPayload(data []byte) *Payload { return &Payload{data: data} }

// MarshalBinary is called by go-redis when it writes the command to a connection.
func (p *Payload) MarshalBinary() ([]byte, error) {
	p.sent.Store(true)
	return p.data, nil
}

// String is called by hooks of the client that log commands.
func (p *Payload) String() string { return string(p.data) }

// Sent reports whether the command may have reached Redis.
func (p *Payload) Sent() bool { return p.sent.Load() }
