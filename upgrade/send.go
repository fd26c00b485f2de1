package upgrade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// TextFrame returns text as a whole WebSocket message from a server in one frame (RFC
// 6455, section 5.2), for [Tunnel.Send]. Build it once for any number of tunnels.
// TextFrame doesn't check that text is UTF-8.
func TextFrame(text string) []byte { return append(frameHead(opText, len(text)), text...) }

// BinaryFrame returns data as a whole WebSocket message, as [TextFrame] does text.
func BinaryFrame(data []byte) []byte { return append(frameHead(opBinary, len(data)), data...) }

// frameHead returns the header of an unmasked frame, with capacity for its payload.
func frameHead(op byte, size int) []byte {
	b := make([]byte, 2, 10+size)
	b[0] = finBit | op
	switch {
	case size <= maxShort:
		b[1] = byte(size)
	case size <= math.MaxUint16:
		b[1] = lengthTwo
		b = binary.BigEndian.AppendUint16(b, uint16(size))
	default:
		b[1] = lengthTwo + 1
		b = binary.BigEndian.AppendUint64(b, uint64(size))
	}
	return b
}

// isMessage reports whether frame is one data frame from a server, and nothing else,
// that is a message by itself. No extension has changed it, so it may be sent whatever
// client and backend have agreed upon (RFC 7692, section 6: a message without RSV1 is
// not compressed).
func isMessage(frame []byte) bool {
	var f frames
	return len(frame) > 0 && frame[0]&^0xf == finBit && f.next(frame) == len(frame) && f.messages == 1
}

// Send writes messages of the gateway's own to the client, between two messages of the
// backend. Each of frames is a whole message in one unmasked frame, as [TextFrame]
// builds it. Send doesn't change it, so it may be sent to any number of tunnels at
// once. The messages of one goroutine arrive in order. They don't count as activity
// for [Proxy].IdleTimeout, since they come from neither end.
//
// Send returns when all is written. Until then, and until ctx ends, it waits for
// Serve, for the end of a message that is passing, and for a client that is slow to
// read.
//
// If ctx ends before a byte is written, nothing is sent and the tunnel goes on. If it
// ends later, the message is torn and the tunnel is cut. A client that came over TLS, and
// whose tunnel is not on an event loop, loses its tunnel as soon as writing has begun,
// since a TLS connection can't be used after a write that was interrupted.
//
// The error wraps the cause of ctx's end, or [ErrClosed] if the tunnel is closing or
// closed, or has passed a close frame of either end, or an invalid frame of the
// backend. Tunnels of protocols other than WebSocket refuse all messages.
func (t *Tunnel) Send(ctx context.Context, frames ...[]byte) error {
	for _, frame := range frames {
		if !isMessage(frame) {
			return errors.New("upgrade: send: not a whole, unmasked message in one frame")
		}
	}
	engine, err := t.served(ctx)
	if err == nil {
		err = engine.send(ctx, frames)
	}
	if err != nil {
		return fmt.Errorf("upgrade: send: %w", err)
	}
	return nil
}

// tornError returns the error of a tunnel that is cut because cause has ended the
// writing of a message.
func tornError(cause error) error { return fmt.Errorf("a message was cut short: %w", cause) }

// served waits for Serve and returns the engine.
func (t *Tunnel) served(ctx context.Context) (engine, error) {
	for {
		t.mu.Lock()
		engine, ended := t.engine, t.ended
		var ready chan struct{}
		if engine == nil && !ended {
			if t.opening.ready == nil {
				t.opening.ready = make(chan struct{})
			}
			ready = t.opening.ready
		}
		t.mu.Unlock()
		switch {
		case ended:
			return nil, ErrClosed
		case engine != nil:
			return engine, nil
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// wake wakes those that wait in served. The tunnel's mu is held.
func (o *opening) wake() {
	if o.ready != nil {
		close(o.ready)
		o.ready = nil
	}
}
