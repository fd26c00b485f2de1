package hub

import "context"

// A Conn is how messages get to a member: a WebSocket of [Hub.Handler], a tunnel
// of a gateway, or anything else that takes messages.
//
// The hub calls one method at a time. ctx ends when the hub has waited for
// [Options].WriteTimeout; the Conn then has to return soon, and is given up.
type Conn interface {
	// Send takes messages in their order; the slice is the hub's again when Send
	// returns. An error ends the member.
	Send(ctx context.Context, messages []*Frame) error
	// Close is called once, as the last method, also after an error of Send. It
	// ends the connection, with a close frame if it can. Code is one that may be
	// on the wire (RFC 6455, section 7.4), or 1005 for a close frame without one,
	// and reason has 123 bytes at most.
	Close(ctx context.Context, code int, reason string) error
}
