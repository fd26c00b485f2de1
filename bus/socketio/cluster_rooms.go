package socketio

import (
	"context"
	"fmt"

	"github.com/limpet-go/limpet/bus"
)

// channels returns the channels that the Cluster needs whatever sockets it has. A guest gets
// only answers.
func (c *Cluster) channels() []string {
	all, answers := c.adapter.channels(c.nsp, c.uid)
	if c.guest {
		return answers
	}
	return append(answers, all...)
}

// attach makes sub the subscription that Watch and Unwatch change. It returns the
// channels to subscribe to at first.
func (c *Cluster) attach(sub bus.Subscription) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	channels := c.channels()
	if c.guest {
		return channels
	}
	c.sub = sub
	for room := range c.rooms {
		if channel := c.adapter.roomChannel(c.nsp, room); channel != "" {
			channels = append(channels, channel)
		}
	}
	return channels
}

// Watch says that rooms have their first local sockets. With most adapters, what is
// sent to a single room has a channel of its own, to which only members with sockets
// in the room are subscribed. After Watch has returned nil the Cluster receives what
// is sent to the rooms. An error means that this isn't certain yet, because Redis
// can't be reached at the moment; the Cluster subscribes as soon as it can.
//
// Each socket is also in a room that is called by its ID. A [Bridge] calls Watch by
// itself.
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

// Unwatch says that rooms have no local sockets any more. [Cluster.Watch] tells why
// that matters.
func (c *Cluster) Unwatch(ctx context.Context, rooms ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock() // held while Redis is asked, or this would undo a Watch that comes meanwhile
	channels := c.setRooms(rooms, false)
	if len(channels) == 0 {
		return nil
	}
	if err := c.sub.Remove(ctx, channels...); err != nil {
		return fmt.Errorf("socketio: unwatch rooms: %w", err)
	}
	return nil
}

// setRooms records whether rooms have local sockets, for Run to begin with. It
// returns the channels to add to the subscription or to remove from it, none before
// Run. c.mu is held.
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
