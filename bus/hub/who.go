package hub

import (
	"slices"
	"strings"
)

// Who selects members on all nodes: those that All, Rooms or IDs name, each of
// them once, without those that an Except names. The zero value selects nobody.
//
// Membership is what each node finds when the message arrives there: a member
// that joins or leaves one of several Rooms at that moment may be missed, or
// selected twice.
type Who struct {
	All         bool     // everybody; Rooms and IDs don't count then
	Rooms       []string // who is in any of these
	IDs         []string // who has any of these IDs, wherever it is
	ExceptRooms []string // but not who is in any of these
	ExceptIDs   []string // nor who has any of these IDs
	Local       bool     // on this node only
}

// Everybody, every room and every ID has a topic: the hub's prefix and a key.
const (
	everybody = ""
	roomKey   = ":room:"
	memberKey = ":member:"
	nodeKey   = ":node:"
)

// to returns the keys of those that who names.
func (who *Who) to() []string {
	if who.All {
		return []string{everybody}
	}
	return keys(who.Rooms, who.IDs)
}

// add adds whom the key of a room or an ID names.
func (who *Who) add(key string) {
	if room, ok := strings.CutPrefix(key, roomKey); ok {
		who.Rooms = append(who.Rooms, room)
	} else if id, ok := strings.CutPrefix(key, memberKey); ok {
		who.IDs = append(who.IDs, id)
	}
}

func (who *Who) except() []string { return keys(who.ExceptRooms, who.ExceptIDs) }

func keys(rooms, ids []string) []string {
	all := make([]string, 0, len(rooms)+len(ids))
	for _, room := range rooms {
		all = append(all, roomKey+room)
	}
	for _, id := range ids {
		all = append(all, memberKey+id)
	}
	if len(all) > 1 {
		slices.Sort(all)
		all = slices.Compact(all)
	}
	return all
}
