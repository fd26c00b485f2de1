package upgrade

import (
	"testing"
	"time"
)

// When a tunnel whose turn has come is closed, by what its ends have sent before and since.
func TestLull(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	type message struct {
		at time.Duration // counted from the turn
		direction
	}
	ping := func(from time.Duration) []message { return []message{{from, toClient}, {from + ms, toBackend}} } // and pong
	often := func(every, answer time.Duration) (all []message) {
		for at := -2 * every; at < 2*time.Second; at += every {
			if all = append(all, message{at, toBackend}); answer > 0 {
				all = append(all, message{at + answer, toClient})
			}
		}
		return all
	}
	for _, test := range []struct {
		name     string
		grace    time.Duration // 0: plenty
		messages []message     // in their order
		want     time.Duration
	}{
		{name: "nobody has sent anything"},
		{name: "the backend has", messages: []message{{-ms, toClient}}},
		{name: "an idle client of Engine.IO", messages: ping(-20 * time.Second)},
		{name: "a client of Engine.IO that has just answered a ping", messages: ping(-301 * ms), want: 700 * ms},
		{name: "answered long ago", messages: []message{{-600 * ms, toBackend}, {-550 * ms, toClient}}},
		{name: "answered just now", messages: []message{{-100 * ms, toBackend}, {-50 * ms, toClient}}, want: 300 * ms},
		{name: "answered slowly, just now", messages: []message{{-450 * ms, toBackend}, {-ms, toClient}}},
		{name: "not answered yet", messages: []message{{-100 * ms, toBackend}, {50 * ms, toClient}}, want: 300 * ms},
		{name: "answered slowly", messages: []message{{-100 * ms, toBackend}, {800 * ms, toClient}}, want: 800 * ms},
		{name: "never answered", messages: []message{{-100 * ms, toBackend}}, want: 900 * ms},
		{name: "never answered, with little time", grace: 200 * ms, messages: []message{{-100 * ms, toBackend}}, want: 200 * ms},
		{name: "answered, with little time", grace: 200 * ms, messages: []message{{-100 * ms, toBackend}, {90 * ms, toClient}}, want: 90 * ms},
		{name: "something else between message and answer", messages: []message{{-50 * ms, toBackend}, {-40 * ms, toClient}, {200 * ms, toClient}}, want: 350 * ms},
		{name: "a message while it waits", messages: []message{{-50 * ms, toBackend}, {0, toClient}, {250 * ms, toBackend}, {300 * ms, toClient}}, want: 650 * ms},
		{name: "a late message while it waits", messages: []message{{250 * ms, toBackend}, {300 * ms, toClient}}, want: 0},
		{name: "question and answer all the time", messages: often(150*ms, 100*ms), want: 550 * ms},
		{name: "question and answer at once", messages: often(20*ms, ms), want: 321 * ms},
		{name: "one way all the time", messages: often(100*ms, 0), want: time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const turn = time.Hour
			grace := test.grace
			if grace == 0 {
				grace = 2 * time.Second
			}
			c := course{websocket: true}
			var before course // which the engine has not told yet
			closed, begun := time.Duration(-1), false
			begin := func() {
				begun = true
				if c.closeGracefully(turn, grace, 1012, "", before.lull.Asked, before.lull.Answered) == settleBoth {
					closed = turn
				}
			}
			// until lets time pass, as an engine does it.
			until := func(at time.Duration) {
				if !begun && at >= turn {
					begin()
				}
				if by := c.deadline(turn, toClient); begun && closed < 0 && by <= at {
					if closed = max(by, turn); c.expire(by, toClient, false) != settleBoth {
						t.Errorf("it isn't closed at its deadline %v", by-turn)
					}
				}
			}
			for _, m := range test.messages {
				until(turn + m.at)
				before.sent(turn+m.at, m.direction)
				if c.sent(turn+m.at, m.direction); begun && closed < 0 && c.deadline(turn+m.at, toClient) <= turn+m.at {
					closed = turn + m.at
				}
			}
			until(turn + time.Minute)
			if got := closed - turn; got != test.want {
				t.Errorf("closed %v after its turn, want %v", got, test.want)
			}
		})
	}
}
