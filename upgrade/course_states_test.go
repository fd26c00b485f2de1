package upgrade

// courseStates are the states that a tunnel can be in, with what TestCourse wants of each
// event there.
var courseStates = []struct {
	name   string
	raw    bool     // not a WebSocket
	events []string // that lead there
	want   []string // by event
}{
	{
		name: "open",
		want: []string{
			"half, over/relaying - 30s, client EOF",               // client ends
			"reset, over/over - -, client reset",                  // client resets
			"settle, relaying/relaying 1s 1s, backend 1012 EOF",   // backend ends
			"settle, relaying/relaying 1s 1s, backend 1012 reset", // backend resets
			"on, relaying/discarding 1s 1s, client reset",         // client lost
			"on, discarding/relaying 1s 1s",                       // backend lost
			"on, relaying/relaying - -, client 1000",              // client's close frame
			"on, relaying/relaying - -, backend 1000",             // backend's close frame
			"settle, relaying/relaying 1s 1s, gateway 1001",       // close
			"cut, over/over - -, gateway",                         // cut
			"on, relaying/relaying - -",                           // settle, within a frame
			"on, relaying/relaying - -",                           // settle
			"on, relaying/relaying - -",                           // deadline
			"on, relaying/relaying - -",                           // deadline, busy
			"on, relaying/relaying 500ms 500ms",                   // close gracefully
		},
	},
	{
		name: "open, not a WebSocket", raw: true,
		want: []string{
			"half, over/relaying - 30s, client",             // client ends
			"reset, over/over - -, client reset",            // client resets
			"half, relaying/over 30s -, backend",            // backend ends
			"half, relaying/over 30s -, backend reset",      // backend resets
			"on, relaying/discarding 1s 1s, client reset",   // client lost
			"on, discarding/relaying 1s 1s",                 // backend lost
			"on, relaying/relaying - -, client 1000",        // client's close frame
			"on, relaying/relaying - -, backend 1000",       // backend's close frame
			"settle, relaying/relaying 1s 1s, gateway 1001", // close
			"cut, over/over - -, gateway",                   // cut
			"on, relaying/relaying - -",                     // settle, within a frame
			"on, relaying/relaying - -",                     // settle
			"on, relaying/relaying - -",                     // deadline
			"on, relaying/relaying - -",                     // deadline, busy
			"on, relaying/relaying 500ms 500ms",             // close gracefully
		},
	},
	{
		name: "close frame of the client passed", events: []string{"client's close frame"},
		want: []string{
			"half, over/relaying - 30s, client 1000",       // client ends
			"reset, over/over - -, client 1000",            // client resets
			"half, relaying/over 1s -, client 1000",        // backend ends
			"half, relaying/over 1s -, client 1000",        // backend resets
			"on, relaying/discarding 1s 1s, client 1000",   // client lost
			"on, discarding/relaying 1s 1s, client 1000",   // backend lost
			"on, relaying/relaying - -, client 1000",       // client's close frame
			"on, relaying/relaying - -, client 1000",       // backend's close frame
			"settle, relaying/relaying 1s 1s, client 1000", // close
			"cut, over/over - -, client 1000",              // cut
			"on, relaying/relaying - -, client 1000",       // settle, within a frame
			"on, relaying/relaying - -, client 1000",       // settle
			"on, relaying/relaying - -, client 1000",       // deadline
			"on, relaying/relaying - -, client 1000",       // deadline, busy
			"settle, relaying/relaying 1s 1s, client 1000", // close gracefully
		},
	},
	{
		name: "close frame of the backend passed", events: []string{"backend's close frame"},
		want: []string{
			"half, over/relaying - 30s, backend 1000",       // client ends
			"reset, over/over - -, backend 1000",            // client resets
			"half, relaying/over 1s -, backend 1000",        // backend ends
			"half, relaying/over 1s -, backend 1000",        // backend resets
			"on, relaying/discarding 1s 1s, backend 1000",   // client lost
			"on, discarding/relaying 1s 1s, backend 1000",   // backend lost
			"on, relaying/relaying - -, backend 1000",       // client's close frame
			"on, relaying/relaying - -, backend 1000",       // backend's close frame
			"settle, relaying/relaying 1s 1s, backend 1000", // close
			"cut, over/over - -, backend 1000",              // cut
			"on, relaying/relaying - -, backend 1000",       // settle, within a frame
			"on, relaying/relaying - -, backend 1000",       // settle
			"on, relaying/relaying - -, backend 1000",       // deadline
			"on, relaying/relaying - -, backend 1000",       // deadline, busy
			"settle, relaying/relaying 1s 1s, backend 1000", // close gracefully
		},
	},
	{
		name: "client ended", events: []string{"client ends"},
		want: []string{
			"on, over/relaying - 30s, client EOF",    // client ends
			"on, over/relaying - 30s, client EOF",    // client resets
			"half, over/over - -, client EOF",        // backend ends
			"half, over/over - -, client EOF",        // backend resets
			"reset, over/over - -, client EOF",       // client lost
			"on, over/relaying - 1s, client EOF",     // backend lost
			"on, over/relaying - 30s, client EOF",    // client's close frame
			"on, over/relaying - 30s, client EOF",    // backend's close frame
			"settle, over/relaying - 1s, client EOF", // close
			"cut, over/over - -, client EOF",         // cut
			"on, over/relaying - 30s, client EOF",    // settle, within a frame
			"on, over/relaying - 30s, client EOF",    // settle
			"cut, over/over - -, client EOF",         // deadline
			"on, over/relaying - 1m0s, client EOF",   // deadline, busy
			"settle, over/relaying - 1s, client EOF", // close gracefully
		},
	},
	{
		name: "backend ended behind its close frame", events: []string{"backend's close frame", "backend ends"},
		want: []string{
			"half, over/over - -, backend 1000",        // client ends
			"reset, over/over - -, backend 1000",       // client resets
			"on, relaying/over 1s -, backend 1000",     // backend ends
			"on, relaying/over 1s -, backend 1000",     // backend resets
			"on, relaying/over 1s -, backend 1000",     // client lost
			"on, discarding/over 1s -, backend 1000",   // backend lost
			"on, relaying/over 1s -, backend 1000",     // client's close frame
			"on, relaying/over 1s -, backend 1000",     // backend's close frame
			"settle, relaying/over 1s -, backend 1000", // close
			"cut, over/over - -, backend 1000",         // cut
			"on, relaying/over 1s -, backend 1000",     // settle, within a frame
			"on, relaying/over 1s -, backend 1000",     // settle
			"cut, over/over - -, backend 1000",         // deadline
			"on, relaying/over 2s -, backend 1000",     // deadline, busy
			"settle, relaying/over 1s -, backend 1000", // close gracefully
		},
	},
	{
		name: "backend ended, not a WebSocket", raw: true, events: []string{"backend ends"},
		want: []string{
			"half, over/over - -, backend",        // client ends
			"reset, over/over - -, backend",       // client resets
			"on, relaying/over 30s -, backend",    // backend ends
			"on, relaying/over 30s -, backend",    // backend resets
			"on, relaying/over 1s -, backend",     // client lost
			"on, discarding/over 1s -, backend",   // backend lost
			"on, relaying/over 30s -, backend",    // client's close frame
			"on, relaying/over 30s -, backend",    // backend's close frame
			"settle, relaying/over 1s -, backend", // close
			"cut, over/over - -, backend",         // cut
			"on, relaying/over 30s -, backend",    // settle, within a frame
			"on, relaying/over 30s -, backend",    // settle
			"cut, over/over - -, backend",         // deadline
			"on, relaying/over 1m0s -, backend",   // deadline, busy
			"settle, relaying/over 1s -, backend", // close gracefully
		},
	},
	{
		name: "client lost", events: []string{"client lost"},
		want: []string{
			"reset, over/over - -, client reset",              // client ends
			"reset, over/over - -, client reset",              // client resets
			"on, relaying/over 1s -, client reset",            // backend ends
			"on, relaying/over 1s -, client reset",            // backend resets
			"on, relaying/discarding 1s 1s, client reset",     // client lost
			"on, discarding/discarding 1s 1s, client reset",   // backend lost
			"on, relaying/discarding 1s 1s, client reset",     // client's close frame
			"on, relaying/discarding 1s 1s, client reset",     // backend's close frame
			"settle, relaying/discarding 1s 2s, client reset", // close
			"cut, over/over - -, client reset",                // cut
			"on, relaying/discarding 1s 1s, client reset",     // settle, within a frame
			"on, relaying/discarding 1s 1s, client reset",     // settle
			"cut, over/over - -, client reset",                // deadline
			"on, relaying/over 2s -, client reset",            // deadline, busy
			"settle, relaying/discarding 1s 2s, client reset", // close gracefully
		},
	},
	{
		name: "backend lost", events: []string{"backend lost"},
		want: []string{
			"on, over/relaying - 1s",                                // client ends
			"on, over/relaying - 1s",                                // client resets
			"settle, discarding/relaying 2s 1s, backend 1012 EOF",   // backend ends
			"settle, discarding/relaying 2s 1s, backend 1012 reset", // backend resets
			"on, discarding/discarding 1s 1s, client reset",         // client lost
			"on, discarding/relaying 1s 1s",                         // backend lost
			"on, discarding/relaying 1s 1s, client 1000",            // client's close frame
			"on, discarding/relaying 1s 1s, backend 1000",           // backend's close frame
			"settle, discarding/relaying 2s 1s, gateway 1001",       // close
			"cut, over/over - -, gateway",                           // cut
			"on, discarding/relaying 1s 1s",                         // settle, within a frame
			"on, discarding/relaying 1s 1s",                         // settle
			"cut, over/over - -, gateway silent",                    // deadline
			"on, over/relaying - 2s",                                // deadline, busy
			"settle, discarding/relaying 2s 1s, gateway 1012",       // close gracefully
		},
	},
	{
		name: "both lost", events: []string{"client lost", "backend lost"},
		want: []string{
			"on, over/discarding - 1s, client reset",            // client ends
			"on, over/discarding - 1s, client reset",            // client resets
			"on, discarding/over 1s -, client reset",            // backend ends
			"on, discarding/over 1s -, client reset",            // backend resets
			"on, discarding/discarding 1s 1s, client reset",     // client lost
			"on, discarding/discarding 1s 1s, client reset",     // backend lost
			"on, discarding/discarding 1s 1s, client reset",     // client's close frame
			"on, discarding/discarding 1s 1s, client reset",     // backend's close frame
			"settle, discarding/discarding 2s 2s, client reset", // close
			"cut, over/over - -, client reset",                  // cut
			"on, discarding/discarding 1s 1s, client reset",     // settle, within a frame
			"on, discarding/discarding 1s 1s, client reset",     // settle
			"on, over/over - -, client reset",                   // deadline
			"on, over/over - -, client reset",                   // deadline, busy
			"settle, discarding/discarding 2s 2s, client reset", // close gracefully
		},
	},
	{
		name: "closing", events: []string{"close"},
		want: []string{
			"settle, relaying/relaying 1s 1s, gateway 1001", // client ends
			"settle, relaying/relaying 1s 1s, gateway 1001", // client resets
			"settle, relaying/relaying 1s 1s, gateway 1001", // backend ends
			"settle, relaying/relaying 1s 1s, gateway 1001", // backend resets
			"on, relaying/discarding 1s 2s, gateway 1001",   // client lost
			"on, discarding/relaying 2s 1s, gateway 1001",   // backend lost
			"on, relaying/relaying 1s 1s, gateway 1001",     // client's close frame
			"on, relaying/relaying 1s 1s, gateway 1001",     // backend's close frame
			"on, relaying/relaying 1s 1s, gateway 1001",     // close
			"cut, over/over - -, gateway 1001",              // cut
			"on, relaying/relaying 1s 1s, gateway 1001",     // settle, within a frame
			"on, discarding/discarding 2s 2s, gateway 1001", // settle
			"settle, relaying/relaying 1s 1s, gateway 1001", // deadline
			"settle, relaying/relaying 1s 1s, gateway 1001", // deadline, busy
			"on, relaying/relaying 1s 1s, gateway 1001",     // close gracefully
		},
	},
	{
		name: "closing and settled", events: []string{"close", "settle"},
		want: []string{
			"on, over/discarding - 2s, gateway 1001",        // client ends
			"on, over/discarding - 2s, gateway 1001",        // client resets
			"on, discarding/over 2s -, gateway 1001",        // backend ends
			"on, discarding/over 2s -, gateway 1001",        // backend resets
			"on, discarding/discarding 2s 2s, gateway 1001", // client lost
			"on, discarding/discarding 2s 2s, gateway 1001", // backend lost
			"on, discarding/discarding 2s 2s, gateway 1001", // client's close frame
			"on, discarding/discarding 2s 2s, gateway 1001", // backend's close frame
			"on, discarding/discarding 2s 2s, gateway 1001", // close
			"cut, over/over - -, gateway 1001",              // cut
			"on, discarding/discarding 2s 2s, gateway 1001", // settle, within a frame
			"on, discarding/discarding 2s 2s, gateway 1001", // settle
			"cut, over/over - -, gateway 1001",              // deadline
			"cut, over/over - -, gateway 1001",              // deadline, busy
			"on, discarding/discarding 2s 2s, gateway 1001", // close gracefully
		},
	},
	{
		name: "closing since the backend ended", events: []string{"backend ends"},
		want: []string{
			"settle, relaying/relaying 1s 1s, backend 1012 EOF", // client ends
			"settle, relaying/relaying 1s 1s, backend 1012 EOF", // client resets
			"settle, relaying/relaying 1s 1s, backend 1012 EOF", // backend ends
			"settle, relaying/relaying 1s 1s, backend 1012 EOF", // backend resets
			"on, relaying/over 1s -, backend 1012 EOF",          // client lost
			"on, discarding/relaying 2s 1s, backend 1012 EOF",   // backend lost
			"on, relaying/relaying 1s 1s, backend 1012 EOF",     // client's close frame
			"on, relaying/relaying 1s 1s, backend 1012 EOF",     // backend's close frame
			"on, relaying/relaying 1s 1s, backend 1012 EOF",     // close
			"cut, over/over - -, backend 1012 EOF",              // cut
			"on, discarding/over 2s -, backend 1012 EOF",        // settle, within a frame
			"on, discarding/over 2s -, backend 1012 EOF",        // settle
			"settle, relaying/relaying 1s 1s, backend 1012 EOF", // deadline
			"settle, relaying/relaying 1s 1s, backend 1012 EOF", // deadline, busy
			"on, relaying/relaying 1s 1s, backend 1012 EOF",     // close gracefully
		},
	},
	{
		name: "closing behind the end of the client", events: []string{"client ends", "close"},
		want: []string{
			"on, over/relaying - 1s, client EOF",     // client ends
			"on, over/relaying - 1s, client EOF",     // client resets
			"settle, over/relaying - 1s, client EOF", // backend ends
			"settle, over/relaying - 1s, client EOF", // backend resets
			"on, over/discarding - 2s, client EOF",   // client lost
			"on, over/relaying - 1s, client EOF",     // backend lost
			"on, over/relaying - 1s, client EOF",     // client's close frame
			"on, over/relaying - 1s, client EOF",     // backend's close frame
			"on, over/relaying - 1s, client EOF",     // close
			"cut, over/over - -, client EOF",         // cut
			"on, over/relaying - 1s, client EOF",     // settle, within a frame
			"on, over/discarding - 2s, client EOF",   // settle
			"settle, over/relaying - 1s, client EOF", // deadline
			"settle, over/relaying - 1s, client EOF", // deadline, busy
			"on, over/relaying - 1s, client EOF",     // close gracefully
		},
	},
	{
		name: "closing since a client was lost", events: []string{"client lost", "close"},
		want: []string{
			"settle, relaying/discarding 1s 2s, client reset", // client ends
			"settle, relaying/discarding 1s 2s, client reset", // client resets
			"on, relaying/over 1s -, client reset",            // backend ends
			"on, relaying/over 1s -, client reset",            // backend resets
			"on, relaying/discarding 1s 2s, client reset",     // client lost
			"on, discarding/discarding 2s 2s, client reset",   // backend lost
			"on, relaying/discarding 1s 2s, client reset",     // client's close frame
			"on, relaying/discarding 1s 2s, client reset",     // backend's close frame
			"on, relaying/discarding 1s 2s, client reset",     // close
			"cut, over/over - -, client reset",                // cut
			"on, relaying/discarding 1s 2s, client reset",     // settle, within a frame
			"on, discarding/discarding 2s 2s, client reset",   // settle
			"settle, relaying/discarding 1s 2s, client reset", // deadline
			"settle, relaying/discarding 1s 2s, client reset", // deadline, busy
			"on, relaying/discarding 1s 2s, client reset",     // close gracefully
		},
	},
	{
		name: "cut", events: []string{"cut"},
		want: []string{
			"on, over/over - -, gateway",     // client ends
			"on, over/over - -, gateway",     // client resets
			"on, over/over - -, gateway",     // backend ends
			"on, over/over - -, gateway",     // backend resets
			"on, over/over - -, gateway",     // client lost
			"on, over/over - -, gateway",     // backend lost
			"on, over/over - -, gateway",     // client's close frame
			"on, over/over - -, gateway",     // backend's close frame
			"settle, over/over - -, gateway", // close
			"cut, over/over - -, gateway",    // cut
			"on, over/over - -, gateway",     // settle, within a frame
			"on, over/over - -, gateway",     // settle
			"on, over/over - -, gateway",     // deadline
			"on, over/over - -, gateway",     // deadline, busy
			"on, over/over - -, gateway",     // close gracefully
		},
	},
	{
		name: "waiting for a lull", events: []string{"close gracefully"},
		want: []string{
			"half, over/relaying - 500ms, client EOF",             // client ends
			"reset, over/over - -, client reset",                  // client resets
			"settle, relaying/relaying 1s 1s, backend 1012 EOF",   // backend ends
			"settle, relaying/relaying 1s 1s, backend 1012 reset", // backend resets
			"on, relaying/discarding 500ms 1s, client reset",      // client lost
			"on, discarding/relaying 1s 500ms",                    // backend lost
			"on, relaying/relaying 500ms 500ms, client 1000",      // client's close frame
			"on, relaying/relaying 500ms 500ms, backend 1000",     // backend's close frame
			"settle, relaying/relaying 1s 1s, gateway 1001",       // close
			"cut, over/over - -, gateway",                         // cut
			"on, relaying/relaying 500ms 500ms",                   // settle, within a frame
			"on, relaying/relaying 500ms 500ms",                   // settle
			"settle, relaying/relaying 1.5s 1.5s, gateway 1012",   // deadline
			"settle, relaying/relaying 1.5s 1.5s, gateway 1012",   // deadline, busy
			"on, relaying/relaying 500ms 500ms",                   // close gracefully
		},
	},
	{
		name: "client ended while waiting for a lull", events: []string{"close gracefully", "client ends"},
		want: []string{
			"on, over/relaying - 500ms, client EOF",    // client ends
			"on, over/relaying - 500ms, client EOF",    // client resets
			"half, over/over - -, client EOF",          // backend ends
			"half, over/over - -, client EOF",          // backend resets
			"reset, over/over - -, client EOF",         // client lost
			"on, over/relaying - 500ms, client EOF",    // backend lost
			"on, over/relaying - 500ms, client EOF",    // client's close frame
			"on, over/relaying - 500ms, client EOF",    // backend's close frame
			"settle, over/relaying - 1s, client EOF",   // close
			"cut, over/over - -, client EOF",           // cut
			"on, over/relaying - 500ms, client EOF",    // settle, within a frame
			"on, over/relaying - 500ms, client EOF",    // settle
			"settle, over/relaying - 1.5s, client EOF", // deadline
			"settle, over/relaying - 1.5s, client EOF", // deadline, busy
			"on, over/relaying - 500ms, client EOF",    // close gracefully
		},
	},
	{
		name: "closing after a lull", events: []string{"close gracefully", "deadline"},
		want: []string{
			"settle, relaying/relaying 1.5s 1.5s, gateway 1012", // client ends
			"settle, relaying/relaying 1.5s 1.5s, gateway 1012", // client resets
			"settle, relaying/relaying 1.5s 1.5s, gateway 1012", // backend ends
			"settle, relaying/relaying 1.5s 1.5s, gateway 1012", // backend resets
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",   // client lost
			"on, discarding/relaying 2.5s 1.5s, gateway 1012",   // backend lost
			"on, relaying/relaying 1.5s 1.5s, gateway 1012",     // client's close frame
			"on, relaying/relaying 1.5s 1.5s, gateway 1012",     // backend's close frame
			"on, relaying/relaying 1.5s 1.5s, gateway 1012",     // close
			"cut, over/over - -, gateway 1012",                  // cut
			"on, relaying/relaying 1.5s 1.5s, gateway 1012",     // settle, within a frame
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",   // settle
			"settle, relaying/relaying 1.5s 1.5s, gateway 1012", // deadline
			"settle, relaying/relaying 1.5s 1.5s, gateway 1012", // deadline, busy
			"on, relaying/relaying 1.5s 1.5s, gateway 1012",     // close gracefully
		},
	},
	{
		name: "lingering", events: []string{"close gracefully", "deadline", "settle"},
		want: []string{
			"settle, relaying/discarding 1.5s 2.5s, gateway 1012", // client ends
			"settle, relaying/discarding 1.5s 2.5s, gateway 1012", // client resets
			"settle, relaying/over 1.5s -, gateway 1012",          // backend ends
			"settle, relaying/over 1.5s -, gateway 1012",          // backend resets
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",     // client lost
			"on, discarding/discarding 2.5s 2.5s, gateway 1012",   // backend lost
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",     // client's close frame
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",     // backend's close frame
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",     // close
			"cut, over/over - -, gateway 1012",                    // cut
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",     // settle, within a frame
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",     // settle
			"settle, relaying/discarding 1.5s 2.5s, gateway 1012", // deadline
			"settle, relaying/discarding 1.5s 2.5s, gateway 1012", // deadline, busy
			"on, relaying/discarding 1.5s 2.5s, gateway 1012",     // close gracefully
		},
	},
}
