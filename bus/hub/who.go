package hub

import (
	"slices"
	"strings"
)

// Who selects members on all nodes: those that All, Rooms or IDs name, each of them
// once, without those that ExceptRooms or ExceptIDs name. The zero value selects
// nobody. For example, this is everybody in the lobby but Ann:
//
//	hub.Who{Rooms: []string{"lobby"}, ExceptIDs: []string{"ann"}}
//
// Each node looks who is in a room when the message arrives there. A member that joins
// or leaves one of several Rooms at that moment may be missed, or selected twice.
type Who struct {
	All         bool     // all members; Rooms and IDs are ignored
	Rooms       []string // the members that are in one of these rooms
	IDs         []string // the members that have one of these IDs
	ExceptRooms []string // but not the members that are in one of these rooms
	ExceptIDs   []string // nor those that have one of these IDs
	Local       bool     // the members of this node only
}

// A key stands for all members, a room, an ID, a node, or all nodes with Presence. Each has a topic, whose name
// is the hub's prefix with the key behind it.
const (
	everybody   = ""
	roomKey     = ":room:"
	memberKey   = ":member:"
	nodeKey     = ":node:"
	presenceKey = ":presence"
)

// to returns the keys of those that who selects, before exceptions.
func (who *Who) to() []string {
	if who.All {
		return []string{everybody}
	}
	return keys(who.Rooms, who.IDs)
}

// add adds the room or the ID that a key stands for.
func (who *Who) add(key string) {
	if room, ok := strings.CutPrefix(key, roomKey); ok {
		who.Rooms = append(who.Rooms, room)
	} else if id, ok := strings.CutPrefix(key, memberKey); ok {
		who.IDs = append(who.IDs, id)
	}
}

// except returns the keys of the exceptions.
func (who *Who) except() []string { return keys(who.ExceptRooms, who.ExceptIDs) }

// keys returns the keys of rooms and IDs, sorted and each of them once. Rooms come first: a
// message is for a member by the first key that selects it, and only one to a room can be
// recovered.
func keys(rooms, ids []string) []string {
	all := make([]string, 0, len(rooms)+len(ids))
	for _, room := range rooms {
		all = append(all, roomKey+room)
	}
	for _, id := range ids {
		all = append(all, memberKey+id)
	}
	if len(all) > 1 {
		slices.Sort(all[:len(rooms)])
		slices.Sort(all[len(rooms):])
		all = slices.Compact(all)
	}
	return all
}
