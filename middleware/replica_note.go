package middleware

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// note is a message between replicas, as JSON. It has either all decisions that the sender
// knows, which may be none, or a session to close, or some to move. The shares of groups are
// left out if nobody has decided about them.
//
//	{"v":1, "from":"ID", "decisions":[{"backend":"a", "wish":"drain",
//	  "since":"2026-01-02T15:04:05.123456789Z", "within":30000000000, "weight":3, "at":1767366245123456, "by":"ID"}],
//	  "shares":{"shares":{"stable":99, "canary":1}, "at":1767366245123456, "by":"ID"}}
//	{"v":1, "from":"ID", "close":{"session":"hex", "code":1008, "reason":"signed out"}}
//	{"v":1, "from":"ID", "move":{"session":"hex", "backend":"b"}}
//	{"v":2, "from":"ID", "moves":[{"session":"hex", "backend":"b"}]}
//
// Fields may be added later. A note that an older replica would misunderstand gets another
// version, and the older replica ignores it.
type note struct {
	Version   int             `json:"v"`
	From      string          `json:"from"`
	Decisions []decision      `json:"decisions,omitempty"`
	Shares    *sharesDecision `json:"shares,omitempty"`
	Close     *sessionNote    `json:"close,omitempty"`
	Move      *moveNote       `json:"move,omitempty"`
	Moves     []moveNote      `json:"moves,omitempty"`
}

// decision is an operator's decision about a backend.
type decision struct {
	Backend string        `json:"backend"`
	Wish    string        `json:"wish"` // serve, drain or off
	Since   time.Time     `json:"since"`
	Within  time.Duration `json:"within,omitzero"` // of a drain, in nanoseconds; 0: no deadline
	Weight  int           `json:"weight,omitzero"` // 0: as each replica has configured it

	// At is the time of the decision in microseconds of Unix time, but always later
	// than that of each decision which the replica knew: a hybrid logical clock. By is
	// the replica on which it was made. It orders two decisions of the same time.
	At int64  `json:"at"`
	By string `json:"by"`
}

// sessionNote says which tunnels to close. It has a hash of the client's key, since the key
// may be a secret that the client signs in with.
type sessionNote struct {
	Session string `json:"session"`
	Code    int    `json:"code"`
	Reason  string `json:"reason,omitempty"`
}

// moveNote says which client moves, and to which backend; "" for any.
type moveNote struct {
	Session string `json:"session"`
	Backend string `json:"backend,omitempty"`
}

// sound reports whether the move can be remembered. What is longer than a replica sends would
// take up memory for as long as moves are remembered.
func (m moveNote) sound() bool {
	return len(m.Session) == hex.EncodedLen(sha256.Size) && len(m.Backend) <= maxName
}

const (
	noteVersion  = 1
	movesVersion = 2 // of a note with several moves
	maxNote      = 1 << 20
	maxName      = 64 // of a backend or a replica, in bytes
)

func (n note) encode() []byte {
	n.Version = noteVersion
	if len(n.Moves) > 0 {
		n.Version = movesVersion
	}
	b, _ := json.Marshal(n) // can't fail: times are in UTC or came as JSON
	return b
}

// parseNote parses a note. It leaves out decisions that aren't sound, and keeps the
// others.
func parseNote(data []byte) (note, error) {
	var n note
	if len(data) > maxNote {
		return n, fmt.Errorf("%d bytes", len(data))
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return n, err
	}
	if n.Version != noteVersion && (n.Version != movesVersion || len(n.Moves) == 0) {
		return n, fmt.Errorf("version %d", n.Version)
	}
	if !isName(n.From) || n.Close != nil && n.Close.Session == "" || n.Move != nil && !n.Move.sound() {
		return n, errors.New("fields are missing or too long")
	}
	sound := n.Decisions[:0]
	for _, d := range n.Decisions {
		if d.sound() {
			sound = append(sound, d)
		}
	}
	n.Decisions = sound
	n.Moves = slices.DeleteFunc(n.Moves, func(m moveNote) bool { return !m.sound() })
	if !n.Shares.sound() {
		n.Shares = nil
	}
	return n, nil
}

func isName(s string) bool { return s != "" && len(s) <= maxName }

// sound reports whether d can be carried out, remembered and passed on.
func (d decision) sound() bool {
	switch d.Wish {
	case "serve", "off":
		if d.Within != 0 {
			return false
		}
	case "drain":
		if d.Within < 0 {
			return false
		}
	default:
		return false
	}
	return 0 <= d.Weight && d.Weight <= balancer.MaxWeight && isName(d.Backend) && isName(d.By) && d.At > 0 && !d.Since.IsZero()
}

// decide returns wish as a decision.
func decide(backend string, wish balancer.Wish, at int64, by string) decision {
	d := decision{Backend: backend, Wish: "serve", Since: wish.Since.UTC().Round(0), Within: wish.Within, Weight: wish.Weight, At: at, By: by}
	switch wish.State {
	case balancer.Draining:
		d.Wish = "drain"
	case balancer.Down:
		d.Wish = "off"
	}
	return d
}

// wish returns d as the pool takes it.
func (d decision) wish() balancer.Wish {
	w := balancer.Wish{Since: d.Since, Within: d.Within, Weight: d.Weight}
	switch d.Wish {
	case "drain":
		w.State = balancer.Draining
	case "off":
		w.State = balancer.Down
	}
	return w
}

// after reports whether d is later than other, which may be about another backend. All
// replicas order two decisions in the same way.
func (d decision) after(other decision) bool {
	return cmp.Or(cmp.Compare(d.At, other.At), cmp.Compare(d.By, other.By), cmp.Compare(d.Backend, other.Backend)) > 0
}

// sessionHash returns the hash that a note has in place of a pin's key.
func sessionHash(key string) string {
	sum := sha256.Sum256([]byte("limpet session " + key))
	return hex.EncodeToString(sum[:])
}
