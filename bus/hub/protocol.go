package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// Protocol is the WebSocket subprotocol of clients that know where they are in each room,
// and can so be given what they have missed when they come back. [Client] is such a client.
// [Hub.Handler] speaks it with those that ask for it. A Conn of [Hub.Connect] speaks it if
// [MemberOptions].Positions isn't nil.
//
// The first message of the client is a JSON object with the positions that it was told
// last, by room, which is {"positions":{}} when it comes for the first time. The messages
// behind it are those of the application.
//
// Each message to the client begins with a line of JSON. The rest, behind the first line
// feed, is the message of the application, text or binary as it is. One without a line
// feed has a line only. Fields that a client doesn't know are to be ignored:
//
//	{"room":"R","id":"P"}      a message to room R, whose position is P. Without the rest: the
//	                           client is at P, and a message there was not for it
//	{"room":"R"}               a message to room R that can't be recovered
//	{}                         a message to the client itself, or to everybody
//	{"missed":"R","id":"P"}    messages to room R before P are missing here, or may be
//	{"joined":"R","id":"P"}    the client is in room R at P: what is sent from now on comes.
//	                           "recovered":true says that it has got what it had missed
//	{"left":"R"}               the client isn't in room R any more, or isn't although it
//	                           has named a position there
//	{"alive":25}               comes when the client has become a member, and then about
//	                           every 25 s, as HandlerOptions.Ping says: when nothing has
//	                           come for twice as long, the connection is dead. Browsers
//	                           don't tell their pages of pings. "answers":true says that
//	                           the server asks clients that answer
//	{"ask":N}                  a question to the client, behind the line
//
// A client that answers questions ([Hub.Ask]) says so with "answers":true in its first message.
// Each later one begins with a line then, too:
//
//	{"answer":N}               the answer to question N is behind it
//	{"answer":N,"error":"why"} there is no answer, and why
//	{}                         a message of the application is behind it
//
// An answer to a question that isn't open is ignored. A server that doesn't say "answers":true in
// its first line asks nothing, and takes lines of the client for a part of its messages.
//
// A position is opaque. Without [Options].Recover there are none, and nothing is recovered.
// Names of rooms must be UTF-8.
const Protocol = "limpet.v1"

// line is the first line of a message to a client that speaks Protocol.
type line struct {
	Room      *string `json:"room,omitempty"`
	Missed    *string `json:"missed,omitempty"`
	Joined    *string `json:"joined,omitempty"`
	Left      *string `json:"left,omitempty"`
	ID        string  `json:"id,omitempty"`
	Recovered bool    `json:"recovered,omitempty"`
	Alive     float64 `json:"alive,omitempty"`
	Answers   bool    `json:"answers,omitempty"`
	Ask       uint64  `json:"ask,omitempty"`
}

// frame returns a message that is the line only.
func (l line) frame() *Frame { return Text(marshal(l)) }

// behind returns a message with a line before it.
func (f *Frame) behind(l []byte) *Frame {
	b := make([]byte, 0, len(l)+1+len(f.payload))
	b = append(append(b, l...), '\n')
	return &Frame{payload: append(b, f.payload...), binary: f.binary}
}

// bare returns a message behind a line that says nothing.
func (f *Frame) bare() *Frame {
	if b := f.lined.Load(); b != nil {
		return b
	}
	f.lined.CompareAndSwap(nil, f.behind([]byte("{}")))
	return f.lined.Load()
}

// firstMessage is the first message of a client.
type firstMessage struct {
	Positions map[string]string `json:"positions"`
	Answers   bool              `json:"answers"`
}

func parseFirst(b []byte) (first firstMessage, err error) {
	if err := json.Unmarshal(b, &first); err != nil {
		return first, err
	}
	if first.Positions == nil {
		return first, errors.New("it has no positions")
	}
	return first, nil
}

// clientLine is the first line of a message of a client that answers questions.
type clientLine struct {
	Answer uint64  `json:"answer"` // the number of a question, or 0
	Error  *string `json:"error"`
}

// cutLine returns the line of a message, and what is behind it, which is nil if it has a line
// only.
func cutLine(message []byte) (l clientLine, rest []byte, err error) {
	head, rest, _ := bytes.Cut(message, []byte{'\n'})
	if string(head) != "{}" {
		err = json.Unmarshal(head, &l)
	}
	return l, rest, err
}

// position is the ID of a message of a [bus.History], by which those of a topic are ordered.
// The zero position is none.
type position struct{ first, second uint64 }

// parsePosition returns none for what is no ID.
func parsePosition(id string) position {
	first, second, _ := strings.Cut(id, "-")
	a, err := strconv.ParseUint(first, 10, 64)
	b, err2 := strconv.ParseUint(second, 10, 64)
	if err != nil || err2 != nil {
		return position{}
	}
	return position{a, b}
}

func (p position) String() string {
	if p == (position{}) {
		return ""
	}
	return strconv.FormatUint(p.first, 10) + "-" + strconv.FormatUint(p.second, 10)
}

// before reports whether p stands before q.
func (p position) before(q position) bool {
	return p.first < q.first || p.first == q.first && p.second < q.second
}
