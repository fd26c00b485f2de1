package socketio

import (
	"context"
	"fmt"

	"github.com/limpet-go/limpet/bus"
)

// begin makes sub the subscription that Watch changes and returns what it has to
// begin with.
func (c *Cluster) attach(sub bus.Subscription) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all, answers := c.adapter.channels(c.nsp, c.uid)
	if c.guest {
		return answers
	}
	c.sub = sub
	channels := append(answers, all...)
	for room := range c.rooms {
		if channel := c.adapter.roomChannel(c.nsp, room); channel != "" {
			channels = append(channels, channel)
		}
	}
	return channels
}

// Watch says that rooms have their first local sockets: with most adapters, what
// is sent to one room is received only by those who watch it. It returns when it
// will be; an error says that this isn't sure yet, because Redis can't be reached
// at the moment. Each socket has a room of its own, called by its ID. A [Bridge]
// does this by itself.
func (c *Cluster) Watch(ctx context.Context, rooms ...string) error {
	c.mu.Lock()
	channels := c.setRooms(rooms, true)
	sub := c.sub
	c.mu.Unlock()
	if len(channels) == 0 {
		return nil
	}
	if err := sub.Add(ctx, channels...); err != nil {
		return fmt.Errorf("socketio: watch rooms: %w", err)
	}
	return nil
}

// Unwatch says that rooms have no local sockets any more.
func (c *Cluster) Unwatch(ctx context.Context, rooms ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock() // or a Watch that comes meanwhile would be undone
	channels := c.setRooms(rooms, false)
	if len(channels) == 0 {
		return nil
	}
	if err := c.sub.Remove(ctx, channels...); err != nil {
		return fmt.Errorf("socketio: unwatch rooms: %w", err)
	}
	return nil
}

// note notes who is there for Run to begin with, and returns what is to be
// changed if it has begun. c.mu is held.
func (c *Cluster) setRooms(rooms []string, there bool) (channels []string) {
	for _, room := range rooms {
		if there {
			c.rooms[room] = struct{}{}
		} else {
			delete(c.rooms, room)
		}
		if channel := c.adapter.roomChannel(c.nsp, room); channel != "" && c.sub != nil {
			channels = append(channels, channel)
		}
	}
	return channels
}
