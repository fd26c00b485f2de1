package affinity

// A Mover is an [Affinity] some of whose clients may be moved, without anybody having asked
// for that one client, to where there is more room for them. A gateway does so if
// Rebalance of package middleware's Options is set.
//
// MayMove reports whether the client with this pin, which Find has returned, may be moved.
// It mustn't be if the client or its application has chosen the home, if a store keeps the
// home since the backend has something of the client's, or if the client would come back to
// the same backend. Affinities that aren't Movers never have clients moved: [Hash], [Table],
// [AppCookie], [Route] and [CookieMap].
type Mover interface {
	MayMove(found Pin) bool
}

// MayMove reports true: nobody has chosen the home but the gateway, and the next answer
// names the new one. With PostOnly it wouldn't.
func (c *Cookie) MayMove(Pin) bool { return !c.PostOnly }

// MayMove reports true: the client opens a new session, which may be anywhere.
func (e *EngineIO) MayMove(Pin) bool { return true }

// MayMove reports whether all members that have found something agree to the move. A client
// that has no home yet, or only that of a session, gets its next one from any member, and
// so those that have found a key have to agree, too. For a client that isn't known at all
// each member has to agree.
func (c Chain) MayMove(found Pin) bool {
	pinned, agreed := false, true
	for i, a := range c {
		own := c.own(found, i)
		m, ok := a.(Mover)
		switch moves := ok && m.MayMove(own); {
		case own.Backend != "" && !moves:
			return false
		case own.Backend != "" && !own.Fixed:
			pinned = true
		case !moves && (own.Key != "" || found.Backend == ""):
			agreed = false
		}
	}
	return pinned || agreed
}
