package socketio

import (
	"context"
	"slices"
)

// send implements sender. The Cluster's own sockets get it whether Redis can be
// reached or not.
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

// sendEach sends what is about single sockets to those that aren't here, as
// socket.io-redis does: the request carries no uid, so this member would take
// its own for that of another one.
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

func (c *Cluster) redis() (Adapter, link) { return c.adapter, c.link }
