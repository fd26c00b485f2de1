package affinity

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/limpet-go/limpet/internal/engineio"
)

// EngineIO is an [Affinity] by the session ID of Engine.IO, the protocol below
// Socket.IO. It pins clients that keep no cookies, such as native applications
// and pages of another site.
//
// A session that polls exists at one node only. The node creates it when it
// answers the client's first request, and the client names it in the query
// parameter sid of all later requests. On that first answer EngineIO either
// changes the sid, so that it says which backend has the session, or remembers
// it. The first request itself has no home: its backend is chosen by the
// balancer, or by the other members of a [Chain], in which an EngineIO comes
// first. A session that begins with a WebSocket needs no pin, and EngineIO
// ignores it.
//
// The pins are Fixed. If the node is gone, the client is told so in the way of
// Engine.IO and opens a new session. The Key of a pin is a hash of the node's
// sid, because whoever knows the sid itself can use the session.
//
// A session ends with its WebSocket, so the pin of one that has a tunnel isn't
// kept longer than others.
//
// Any number of replicas can serve one session if they have the same Secrets,
// for SIDModeTag, or the same Store, for SIDModeLearn. The zero value is ready
// for one process. An EngineIO must not be copied after its first use.
type EngineIO struct {
	// Path is the path under which Engine.IO is served, such as "/socket.io/".
	// EngineIO ignores requests whose path doesn't begin with it. It also
	// ignores requests without the parameter EIO, unless their sid has a
	// genuine tag. Empty means all paths.
	Path string

	// Mode says how a sid is tied to its backend.
	Mode SIDMode

	// Secrets seal the tags of SIDModeTag. Each has at least 32 random bytes,
	// and they may be those of a [Cookie]. The first one seals and all of them
	// open. To rotate, add the new secret as the second one on all replicas,
	// then move it to the front on all. Remove the old one when its sessions
	// have ended.
	//
	// Without secrets, the EngineIO makes a random one and logs a warning:
	// other replicas, and this one after a restart, don't know its sids.
	// SIDModeLearn needs none.
	Secrets [][]byte

	// Store keeps the pins of SIDModeLearn. Nil means an [LRU] of this
	// EngineIO's own, which no other replica knows. The lifetimes of pins are
	// those of the store.
	Store Store

	// Name separates the pins in Store from those of others. The key of a pin
	// begins with it and a ':'. Empty means "eio".
	Name string

	// Logger gets the warning about missing Secrets. Nil means slog.Default().
	Logger *slog.Logger

	random []byte // in place of Secrets, see RandomSecrets

	once   sync.Once
	tagger tagger
	table  Table // only its store and storeKey are used

	origins origins
	storing atomic.Int32 // calls of storeAgain that wait
	err     error        // what Validate returns
}

// SIDMode is a way to tie an Engine.IO session ID to a backend.
type SIDMode int

const (
	// SIDModeByVersion is SIDModeTag for version 4 of the protocol, which
	// Socket.IO 3 and 4 use. It is SIDModeLearn for earlier versions: there,
	// socket.id is the sid, and applications pass it on.
	SIDModeByVersion SIDMode = iota

	// SIDModeTag appends a tag to the sid on its way to the client, and removes
	// the tag before a backend sees it. The tag contains the backend's ID,
	// encrypted, and a MAC of 80 bits over the ID and the sid. With the dot
	// before it, a tag has 25 characters of the URL-safe alphabet for an ID of
	// up to 8 bytes, and 11 more for each 8 bytes beyond, which makes 100 for
	// the longest ID of 64 bytes.
	//
	// Nothing is stored, and any replica with the same Secrets can serve the
	// session. A client of version 3 must not tell its socket.id to anybody,
	// since that is the sid with the tag.
	SIDModeTag

	// SIDModeLearn leaves the sid as it is and keeps its backend in the Store.
	SIDModeLearn
)

// maxSID is the length of the longest sid that is tagged or looked up. The sids
// that Engine.IO makes have 20 characters, but an application can make its own.
const maxSID = 1024

// A sidNote is the Note of an Engine.IO request, which Find passes to Rewrite,
// Bind and Gone.
type sidNote struct {
	engineQuery
	mode  SIDMode // SIDModeTag or SIDModeLearn
	opens bool    // the request opens a session that polls
	plain string  // the sid without its tag, as the backend knows it; "" if it has no tag
}

// Find reads the backend of the session from its sid, or looks it up in the
// store. Status is None for a request that belongs to no Engine.IO session,
// Unknown for a sid that has no tag or isn't in the store, and Forged for a sid
// whose tag isn't genuine.
func (e *EngineIO) Find(r *http.Request) (Pin, error) {
	if !strings.HasPrefix(r.URL.Path, e.Path) {
		return Pin{}, nil
	}
	q := parseEngineQuery(r.URL.RawQuery)
	tooLong := len(q.sid) > maxSID+maxTag
	if q.version == "" && (q.sid == "" || tooLong || e.Mode == SIDModeLearn) {
		return Pin{}, nil
	}
	if err := e.Validate(); err != nil {
		return Pin{}, err
	}
	note := &sidNote{engineQuery: q, mode: e.Mode}
	if note.mode == SIDModeByVersion {
		note.mode = SIDModeLearn
		if q.version == "4" { // Engine.IO itself takes all others for version 3
			note.mode = SIDModeTag
		}
	}
	pin := Pin{Note: note}
	switch {
	case q.version == "":
		// Any application may have a parameter sid. Only a genuine tag shows
		// that this one is Engine.IO's.
		if pin = e.openTag(note); pin.Status != Hit {
			pin = Pin{}
		}
		return pin, nil
	case q.sid == "":
		note.opens = r.Method == http.MethodGet && q.transport == "polling"
		return pin, nil
	case tooLong:
		pin.Status = Unknown
		return pin, nil
	case note.mode == SIDModeLearn:
		key := secretKey(q.sid)
		home, err := e.table.store().Load(r.Context(), e.table.storeKey(key))
		if err != nil {
			err = fmt.Errorf("affinity: Engine.IO: load the pin of a session: %w", err)
		}
		pin.Status = Unknown
		if home != "" {
			pin = Pin{Backend: home, Key: key, Status: Hit, Fixed: true, Note: note}
		}
		return pin, err
	}
	return e.openTag(note), nil
}

// openTag returns the pin of a session whose sid may have a tag.
func (e *EngineIO) openTag(note *sidNote) Pin {
	plain, home, status := e.tagger.open(note.sid)
	if status != Hit {
		return Pin{Status: status, Note: note}
	}
	note.plain = plain
	return Pin{Backend: home, Key: secretKey(plain), Status: Hit, Fixed: true, Note: note}
}

// Rewrite removes the tag from the sid. It also removes Accept-Encoding from a
// request that opens a session, since Bind can't read a compressed answer.
func (e *EngineIO) Rewrite(out *http.Request, found Pin) {
	note, ok := found.Note.(*sidNote)
	switch {
	case !ok:
	case note.opens:
		delete(out.Header, "Accept-Encoding")
	case note.plain != "":
		out.URL.RawQuery = replaceSID(out.URL.RawQuery, note.sid, note.plain)
	}
}

// Bind looks for the sid in the answer to a request that opens a session, and
// tags or remembers it. It reads ahead until the sid is there, which holds the
// answer back for so long. Other answers pass unchanged.
//
// If another backend stood in for a.Home, the session is bound to the backend
// that answered.
//
// If the backend answers that it doesn't know the session of the request, which
// is Engine.IO's status 400 with code 1, Bind calls a.UnknownSession.
func (e *EngineIO) Bind(a Answer) (key string, err error) {
	note, ok := a.Found.Note.(*sidNote)
	if !ok {
		return a.Found.Key, nil
	}
	status := a.Response.StatusCode
	switch {
	case note.opens && status == http.StatusOK && a.Home != "":
		e.origins.learn(a.Request, a.Response.Header, note.version)
		return e.bindSession(a, note.mode)
	case note.sid != "" && status == http.StatusBadRequest && a.UnknownSession != nil && engineio.SaysUnknown(a.Response):
		a.UnknownSession(a.Found)
	}
	return a.Found.Key, nil
}

// bindSession binds the session that the answer opens, if it opens one.
func (e *EngineIO) bindSession(a Answer, mode SIDMode) (key string, err error) {
	res, home := a.Response, a.answeredBy()
	if enc := res.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return "", fmt.Errorf("affinity: Engine.IO: backend %q opened a session in the encoding %.20q, which nobody asked for: it can't be pinned", home, enc)
	}
	body, o := peekOpening(res)
	if o == nil || len(o.sid) > maxSID {
		return "", nil
	}
	key = secretKey(o.sid)
	if mode == SIDModeTag {
		tag, err := e.tagger.tag(o.sid, home)
		if err != nil {
			return "", fmt.Errorf("affinity: Engine.IO: session of backend %q: %w", home, err)
		}
		body.Head = o.extend(body.Head, tag)
		added := int64(len(body.Head) - o.read)
		if res.ContentLength >= 0 {
			res.ContentLength += added
		}
		if n, err := strconv.ParseInt(res.Header.Get("Content-Length"), 10, 64); err == nil {
			res.Header.Set("Content-Length", strconv.FormatInt(n+added, 10))
		}
		return key, nil
	}
	store, id := e.table.store(), e.table.storeKey(key)
	now, err := store.Swap(a.Request.Context(), id, "", home)
	if err == nil && now != home {
		// The sid isn't new: an application that makes its own may repeat one.
		// The session that was opened last counts.
		_, err = store.Swap(a.Request.Context(), id, now, home)
	}
	if err != nil {
		e.storeAgain(id, home, 0)
		err = fmt.Errorf("affinity: Engine.IO: store the pin of a session to backend %q: %w", home, err)
	}
	return key, err
}

// Gone answers that the session is unknown, as the server engine.io does: with
// JSON to a request that polls, and with text to the handshake of a WebSocket.
//
// A page of another site may read the answer only as far as a node has allowed that
// site to read an answer that opened a session, through this EngineIO: the answer has
// the same CORS fields then, and otherwise none. Nodes of version 3 allow all sites: one
// that has allowed any to a request without an Origin is taken for such a node, for
// requests of that version. To a page that may not read the answer the
// request has failed, which has the same effect on clients of Engine.IO. Gone returns
// nil for a CORS preflight, so that another backend answers it.
func (e *EngineIO) Gone(r *http.Request, found Pin) *http.Response {
	note, ok := found.Note.(*sidNote)
	if !ok || r.Method == http.MethodOptions {
		return nil
	}
	h := http.Header{}
	text := `{"code":1,"message":"` + engineio.UnknownSession + `"}`
	if note.transport == "websocket" {
		text = engineio.UnknownSession
		h.Set("Content-Type", "text/html")
	} else {
		h.Set("Content-Type", "application/json")
		e.origins.allow(h, r, note.version)
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	return &http.Response{
		Status: "400 Bad Request", StatusCode: http.StatusBadRequest,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, ContentLength: int64(len(text)), Body: io.NopCloser(strings.NewReader(text)), Request: r,
	}
}

// Validate refuses secrets that are too short or easy to guess, a Path that
// doesn't begin with a '/', a Name with a ':', and a Mode that doesn't exist.
// As long as it returns an error, Find returns it too, and no client is pinned.
func (e *EngineIO) Validate() error {
	e.once.Do(e.init)
	return e.err
}

// init computes what is the same for all requests.
func (e *EngineIO) init() {
	e.table = Table{Store: e.Store, Name: e.Name}
	if e.Name == "" {
		e.table.Name = "eio"
	}
	err := e.table.Validate()
	if e.Mode < SIDModeByVersion || e.Mode > SIDModeLearn {
		err = errors.Join(err, fmt.Errorf("there is no mode %d", e.Mode))
	}
	if e.Path != "" && e.Path[0] != '/' {
		err = errors.Join(err, fmt.Errorf("path %q doesn't begin with a '/'", e.Path))
	}
	if e.Mode != SIDModeLearn {
		var secretErr error
		e.tagger, secretErr = newTagger(e.secretsOrRandom())
		err = errors.Join(err, secretErr)
	}
	if err != nil {
		e.err = fmt.Errorf("affinity: Engine.IO: %w", err)
	}
}

// secretsOrRandom returns Secrets, or a random one, that of another process if it was
// inherited.
func (e *EngineIO) secretsOrRandom() [][]byte {
	if len(e.Secrets) > 0 {
		e.random = nil
		return e.Secrets
	}
	if e.random == nil {
		e.random = secretsOrRandom(nil, e.Logger, "Engine.IO")[0]
	}
	return [][]byte{e.random}
}
