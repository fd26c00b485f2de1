package hub

import (
	"hash/maphash"
	"iter"
	"strings"
	"sync"
)

// rooms are the rooms that have members on this node, by key. They are spread over
// shards with a lock each, so that members who join and leave seldom wait for each
// other.
type rooms struct {
	hub      *Hub
	interest *interest
	seed     maphash.Seed
	shards   [64]shard
	lists    sync.Pool // of *[]*Member
}

type shard struct {
	mu    sync.RWMutex
	rooms map[string]*room
}

type room struct {
	members map[*Member]struct{}
	ready   *round // subscribes to the room's topic; when it has ended without an error, messages of other nodes arrive
	tail    *tail  // nil without [Options].Recover, and for what is no room
}

func (r *rooms) shard(key string) *shard {
	return &r.shards[maphash.String(r.seed, key)%uint64(len(r.shards))]
}

// enter adds a member to a room. It returns the round at whose end the bus delivers
// the room's messages.
func (r *rooms) enter(key string, m *Member) *round {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.rooms[key]
	if in == nil {
		if s.rooms == nil {
			s.rooms = make(map[string]*room)
		}
		in = &room{members: make(map[*Member]struct{}), ready: r.interest.note(key)}
		if r.hub.ordered(key) {
			in.tail = &tail{hub: r.hub, key: key, ready: in.ready}
		}
		s.rooms[key] = in
	}
	in.members[m] = struct{}{}
	return in.ready
}

// leave takes a member out of a room.
func (r *rooms) leave(key string, m *Member) {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.rooms[key]
	if delete(in.members, m); len(in.members) == 0 {
		delete(s.rooms, key)
		r.interest.note(key)
	}
}

// mend notes that the bus delivers the messages of a room whose round may have failed.
func (r *rooms) mend(key string) {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rooms[key].mend()
}

// mendAll does it for all rooms.
func (r *rooms) mendAll() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for _, in := range s.rooms {
			in.mend()
		}
		s.mu.Unlock()
	}
}

// mend does nothing for a room that is gone.
func (in *room) mend() {
	if in != nil && in.ready.over() && in.ready.err != nil {
		in.ready = &round{done: in.ready.done}
	}
}

// has reports whether a room has members.
func (r *rooms) has(key string) bool {
	s := r.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.rooms[key] != nil
}

// tail returns the tail of a room, or nil if it has none or has no members.
func (r *rooms) tail(key string) *tail {
	s := r.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if in := s.rooms[key]; in != nil {
		return in.tail
	}
	return nil
}

// keys returns the keys of all rooms that have members, without everybody and IDs.
func (r *rooms) keys() (list []string) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.RLock()
		for key := range s.rooms {
			if strings.HasPrefix(key, roomKey) {
				list = append(list, key)
			}
		}
		s.mu.RUnlock()
	}
	return list
}

// size returns the number of members of a room.
func (r *rooms) size(key string) int {
	s := r.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if in := s.rooms[key]; in != nil {
		return len(in.members)
	}
	return 0
}

// members iterates over those who are in a room now. It copies them first, and the
// room isn't locked during the iteration: a message to ten thousand members keeps
// nobody from joining.
func (r *rooms) members(key string) iter.Seq[*Member] {
	return func(yield func(*Member) bool) {
		list := r.lists.Get().(*[]*Member)
		defer func() {
			clear(*list)
			*list = (*list)[:0]
			r.lists.Put(list)
		}()
		s := r.shard(key)
		s.mu.RLock()
		if in := s.rooms[key]; in != nil {
			for m := range in.members {
				*list = append(*list, m)
			}
		}
		s.mu.RUnlock()
		for _, m := range *list {
			if !yield(m) {
				return
			}
		}
	}
}

// count returns the number of members, and that of rooms without the ones that stand
// for everybody and for IDs.
func (r *rooms) count() (members, named int) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.RLock()
		for key, in := range s.rooms {
			if key == everybody {
				members = len(in.members)
			} else if strings.HasPrefix(key, roomKey) {
				named++
			}
		}
		s.mu.RUnlock()
	}
	return members, named
}
