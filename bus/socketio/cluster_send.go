package socketio

import (
	"context"
	"slices"
)

// send implements sender. The Cluster's own sockets get the message first, whether
// Redis can be reached or not.
func (c *Cluster) send(ctx context.Context, m *message) error {
	m.uid = c.uid
	if m.nsp != c.nsp {
		return publish(ctx, c.link, c.adapter, m)
	}
	switch m.kind {
	case join, leave, disconnect:
		if c.adapter.singleSockets() {
			return c.sendEach(ctx, m)
		}
	}
	frames, err := encode(c.adapter, m)
	if err != nil {
		return err
	}
	if err := c.applyLocally(m, nil); err != nil {
		return err
	}
	return sendFrames(ctx, c.link, m, frames)
}

// sendEach sends a join, leave or disconnect that names single sockets. It applies
// the message to the sockets that are here, and sends the rest, as socket.io-redis
// does. The request that is sent doesn't name the sender, so this member would take
// it for the request of another one and apply it a second time.
func (c *Cluster) sendEach(ctx context.Context, m *message) error {
	if len(m.to) > 0 && len(m.except) == 0 {
		m.to = slices.DeleteFunc(slices.Clone(m.to), func(id string) bool {
			one := *m
			one.to = []string{id}
			return c.apply(&one) > 0
		})
		if len(m.to) == 0 {
			return nil
		}
	}
	return publish(ctx, c.link, c.adapter, m)
}

// redis implements sender.
func (c *Cluster) redis() (Adapter, link) { return c.adapter, c.link }
