// Package hub keeps rooms of connections, and joins those of several processes over
// a [bus.Bus].
//
// A [Hub] is one node. [Hub.Handler] makes WebSocket clients its members, and
// [Hub.Connect] takes connections of any other kind. Members are in rooms, and
// [Hub.Send] sends to all that a [Who] selects, on whichever node they are. With
// [Options].Recover and the protocol that [Client] speaks, those that were away get what they
// have missed:
//
//	h, err := hub.New(&bus.Redis{Client: client}, nil)
//	// ...
//	go func() { ended <- h.Run(ctx) }()
//	http.Handle("/ws", h.Handler(&hub.HandlerOptions{
//		Member: func(r *http.Request) (hub.MemberOptions, error) {
//			return hub.MemberOptions{Rooms: []string{"lobby"}}, nil
//		},
//		Message: func(ctx context.Context, m *hub.Member, f *hub.Frame) {
//			h.Send(ctx, hub.Who{Rooms: []string{"lobby"}}, f)
//		},
//	}))
//
// With [Options].Presence each node knows the members of all others: [Hub.Count] and
// [Hub.Present] answer at once, and OnPresence is told who joins and leaves anywhere.
// Without it [Hub.Members] asks all nodes. [Hub.Ask] asks members, and waits for their answers.
package hub
