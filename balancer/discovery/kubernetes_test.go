package discovery_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer/discovery"
)

// An apiServer is an API server as https://kubernetes.io/docs/reference/using-api/api-concepts/
// describes it, for the EndpointSlices and Pods of the namespace ns.
type apiServer struct {
	*httptest.Server
	folder string // of the service account

	mu      sync.Mutex
	token   string
	version int
	oldest  int // versions before are forgotten
	slices  map[string]object
	pods    map[string]object
	history []object           // events, with their versions
	changed chan struct{}      // closed with the next change
	page    int                // slices in a page of a list; 0: all
	lists   int                // lists that were begun
	faults  []http.HandlerFunc // for the next requests of slices, one each
	asked   []string           // queries of slices
}

type object = map[string]any

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{folder: t.TempDir(), version: 100, slices: make(map[string]object), pods: make(map[string]object), changed: make(chan struct{})}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	must(t, os.WriteFile(filepath.Join(s.folder, "ca.crt"), ca, 0o600))
	must(t, os.WriteFile(filepath.Join(s.folder, "namespace"), []byte("ns"), 0o600))
	s.setToken(t, "first", true)
	return s
}

// setToken changes the token that counts, and with told that of the service account.
func (s *apiServer) setToken(t *testing.T, token string, told bool) {
	t.Helper()
	s.do(func() { s.token = token })
	if told {
		must(t, os.WriteFile(filepath.Join(s.folder, "token"), []byte(token+"\n"), 0o600))
	}
}

func (s *apiServer) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *apiServer) source() *discovery.Kubernetes {
	return &discovery.Kubernetes{Service: "svc", Port: "http", Server: s.URL, Account: s.folder}
}

// put adds or changes a slice. addressType is IPv4 or IPv6; each endpoint is a name, an
// address and words: unready, terminating.
func (s *apiServer) put(name, addressType string, endpoints ...string) {
	var list []object
	for _, spec := range endpoints {
		words := strings.Fields(spec)
		uid, _, _ := strings.Cut(words[0], "/")
		conditions := object{}
		if slices.Contains(words, "unready") {
			conditions["ready"], conditions["serving"] = false, false
		}
		if slices.Contains(words, "terminating") {
			conditions["ready"], conditions["terminating"] = false, true
		}
		e := object{"addresses": []string{words[1]}, "conditions": conditions}
		if words[0] != "-" {
			e["targetRef"] = object{"kind": "Pod", "name": strings.TrimSuffix(words[0], "'"), "uid": "uid-" + uid}
		}
		list = append(list, e)
	}
	s.change("", object{
		"kind": "EndpointSlice", "addressType": addressType, "endpoints": list,
		"metadata": object{"name": name},
		"ports":    []object{{"name": "http", "protocol": "TCP", "port": 3000}, {"name": "dns", "protocol": "UDP", "port": 53}, {"name": "admin", "port": 9090}},
	})
}

func (s *apiServer) remove(name string) {
	s.change("DELETED", object{"metadata": object{"name": name}})
}

func (s *apiServer) change(kind string, slice object) {
	s.do(func() {
		s.version++
		meta := slice["metadata"].(object)
		name := meta["name"].(string)
		meta["resourceVersion"] = strconv.Itoa(s.version)
		switch {
		case kind == "DELETED":
			delete(s.slices, name)
		case kind == "BOOKMARK":
		case s.slices[name] == nil:
			kind = "ADDED"
		default:
			kind = "MODIFIED"
		}
		if kind == "ADDED" || kind == "MODIFIED" {
			s.slices[name] = slice
		}
		s.history = append(s.history, object{"type": kind, "object": slice, "version": s.version})
		close(s.changed)
		s.changed = make(chan struct{})
	})
}

func (s *apiServer) refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code})
}

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	authorized := r.Header.Get("Authorization") == "Bearer "+s.token
	pod, isPod := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/ns/pods/")
	found := s.pods[pod]
	var fault http.HandlerFunc
	if !isPod {
		s.asked = append(s.asked, r.URL.RawQuery)
		if len(s.faults) > 0 && authorized {
			fault, s.faults = s.faults[0], s.faults[1:]
		}
	}
	s.mu.Unlock()
	q := r.URL.Query()
	switch {
	case !authorized:
		s.refuse(w, 401, "Unauthorized")
	case fault != nil:
		fault(w, r)
	case isPod && found == nil:
		s.refuse(w, 403, "pods is forbidden")
	case isPod:
		_ = json.NewEncoder(w).Encode(found)
	case r.URL.Path != "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices" || q.Get("labelSelector") != "kubernetes.io/service-name=svc":
		s.refuse(w, 404, "not found: "+r.URL.String())
	case q.Get("watch") != "":
		s.watch(w, r)
	default:
		s.list(w, q.Get("continue"))
	}
}

func (s *apiServer) list(w http.ResponseWriter, from string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from == "" {
		s.lists++
	}
	meta := object{"resourceVersion": strconv.Itoa(s.version)}
	items := []object{}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range s.slices {
			if !yield(name) {
				return
			}
		}
	}) {
		switch {
		case name <= from:
		case s.page > 0 && len(items) == s.page:
			meta["continue"] = items[len(items)-1]["metadata"].(object)["name"]
		default:
			items = append(items, s.slices[name])
		}
	}
	_ = json.NewEncoder(w).Encode(object{"kind": "EndpointSliceList", "metadata": meta, "items": items})
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	rc := http.NewResponseController(w)
	for first := true; ; first = false {
		s.mu.Lock()
		forgotten, changed := first && (from < s.oldest || from > s.version), s.changed
		var events []object
		for _, e := range s.history {
			if v := e["version"].(int); v > from {
				events = append(events, e)
				from = v
			}
		}
		text, _ := json.Marshal(events)
		s.mu.Unlock()
		if forgotten {
			s.refuse(w, 410, "too old resource version")
			return
		}
		var copies []json.RawMessage
		_ = json.Unmarshal(text, &copies)
		for _, e := range copies {
			fmt.Fprintf(w, "%s\n", e)
		}
		_ = rc.Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t)
	told := watchSource(t, s.source())
	told.await(t, "error: the Service svc has no EndpointSlice")
	s.put("svc-1", "IPv4", "b 10.0.0.2", "a 10.0.0.1")
	told.is(t, "a@10.0.0.1:3000, b@10.0.0.2:3000")
	s.put("svc-2", "IPv4", "c 10.0.0.3", "- 10.0.0.9")
	told.is(t, "10.0.0.9-3000@10.0.0.9:3000, a@10.0.0.1:3000, b@10.0.0.2:3000, c@10.0.0.3:3000")
	s.put("svc-2", "IPv4", "c 10.0.0.3")
	s.put("svc-6", "IPv6", "a 2001:db8::1", "d 2001:db8::4")
	told.is(t, "a@10.0.0.1:3000, b@10.0.0.2:3000, c@10.0.0.3:3000, d@[2001:db8::4]:3000")
	s.change("BOOKMARK", object{"metadata": object{"name": ""}})
	s.remove("svc-6")
	told.is(t, "a@10.0.0.1:3000, b@10.0.0.2:3000, c@10.0.0.3:3000")
	if s.lists != 1 {
		t.Errorf("%d lists, want 1", s.lists)
	}

	six := s.source()
	six.IPv6, six.Port, six.Scheme, six.Namespace = true, "9090", "https", "ns"
	s.put("svc-6", "IPv6", "a 2001:db8::1")
	watchSource(t, six).is(t, "a@https://[2001:db8::1]:9090, b@https://10.0.0.2:9090, c@https://10.0.0.3:9090")
	wrong := s.source()
	wrong.Port = "web"
	watchSource(t, wrong).await(t, `no such port as "web": name one of these, behind a colon: admin (9090), dns (53), http (3000)`)
}

func TestKubernetesConditions(t *testing.T) {
	t.Parallel()
	const deleted, spec = "deletionGracePeriodSeconds", "terminationGracePeriodSeconds"
	for _, tt := range []struct {
		name  string
		first []string // of the slice svc-1
		other []string // of the slice svc-2
		pod   object   // a
		want  string
	}{
		{"unready", []string{"a 10.0.0.1 unready", "b 10.0.0.2"}, nil, nil, "a@10.0.0.1:3000 draining 0s, b@10.0.0.2:3000"},
		{"none is ready", []string{"a 10.0.0.1 unready", "b 10.0.0.2 unready"}, nil, nil, "a@10.0.0.1:3000, b@10.0.0.2:3000"},
		{"no other is ready", []string{"a 10.0.0.1 terminating", "b 10.0.0.2 unready"}, nil, nil, "a@10.0.0.1:3000 draining 28s, b@10.0.0.2:3000"},
		{"terminating", []string{"a 10.0.0.1 terminating", "b 10.0.0.2"}, nil,
			object{"metadata": object{"uid": "uid-a", deleted: 60}, "spec": object{spec: 300}}, "a@10.0.0.1:3000 draining 58s, b@10.0.0.2:3000"},
		{"terminating, by its specification", []string{"a 10.0.0.1 terminating", "b 10.0.0.2"}, nil,
			object{"metadata": object{"uid": "uid-a"}, "spec": object{spec: 10}}, "a@10.0.0.1:3000 draining 9s, b@10.0.0.2:3000"},
		{"terminating, and another has its name", []string{"a 10.0.0.1 terminating", "b 10.0.0.2"}, nil,
			object{"metadata": object{"uid": "uid-c", deleted: 60}}, "a@10.0.0.1:3000 draining 28s, b@10.0.0.2:3000"},
		{"in an older slice, too", []string{"a 10.0.0.1", "b 10.0.0.2"}, []string{"a 10.0.0.1 terminating"}, nil, "a@10.0.0.1:3000 draining 28s, b@10.0.0.2:3000"},
		{"another of the same name", []string{"a 10.0.0.1 terminating"}, []string{"a' 10.0.0.5"}, nil, "a@10.0.0.5:3000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newAPIServer(t)
			s.put("svc-1", "IPv4", tt.first...)
			s.put("svc-2", "IPv4", tt.other...)
			if tt.pod != nil {
				s.pods["a"] = tt.pod
			}
			if got := <-watchSource(t, s.source()); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// Whatever becomes of a watch or a list, the source catches up, and tells no targets that
// there weren't.
func TestKubernetesFaults(t *testing.T) {
	t.Parallel()
	answer := func(code int, fields ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(fields); i += 2 {
				w.Header().Set(fields[i], fields[i+1])
			}
			(&apiServer{}).refuse(w, code, "fault")
		}
	}
	send := func(text string, end bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, text)
			_ = http.NewResponseController(w).Flush()
			if !end {
				panic(http.ErrAbortHandler)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		before func(s *apiServer) // the first list
		faults []http.HandlerFunc // from the first watch on
		then   func(s *apiServer) // with the faults
		lists  int                // that were necessary; 0: any number
		says   string             // as an error
	}{
		{name: "watch ends", faults: []http.HandlerFunc{send("", true)}, lists: 1},
		{name: "watch is cut", faults: []http.HandlerFunc{send("", false)}, lists: 1},
		{name: "watch is cut within an event", faults: []http.HandlerFunc{send(`{"type":"ADDED","object":{"metadata":{"name":"x","resourceVersion":"900"},"addre`, false)}, lists: 1},
		{name: "watch ends within an event", faults: []http.HandlerFunc{send(`{"type":"ADDED","object":{"metadata":{"name":"x","resourceVersion":"900"},"addre`, true)}, lists: 1},
		{name: "410 as a status", faults: []http.HandlerFunc{answer(410)}, lists: 2},
		{name: "410 as an event", faults: []http.HandlerFunc{send(`{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}}`+"\n", true)}, lists: 2},
		{name: "another error as an event", faults: []http.HandlerFunc{send(`{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd"}}`+"\n", true)}, lists: 2, says: "ends the watch with 500"},
		{name: "an event that makes no sense", faults: []http.HandlerFunc{send(`{"type":"ADDED","object":{"metadata":7}}`+"\n", true)}, lists: 2, says: "an event of the API server"},
		{name: "a type of the future", faults: []http.HandlerFunc{send(`{"type":"BLINK","object":{"metadata":{"name":"x","resourceVersion":"900"}}}`+"\n", false)}, lists: 1},
		{name: "no JSON", faults: []http.HandlerFunc{send("<html>\n", true)}, lists: 1},
		{name: "an event without an end", faults: []http.HandlerFunc{send(`{"type":"`+strings.Repeat("x", 5<<20), true)}, lists: 1},
		{name: "500", faults: []http.HandlerFunc{answer(500), answer(503)}, says: "answers 500"},
		{name: "429", faults: []http.HandlerFunc{answer(429, "Retry-After", "2")}, says: "answers 429"},
		{name: "redirect", faults: []http.HandlerFunc{answer(302, "Location", "http://127.0.0.1:1/")}, says: "answers 302"},
		{name: "versions begin anew", faults: []http.HandlerFunc{send("", false)}, lists: 2, then: func(s *apiServer) {
			s.do(func() { s.version, s.history = 5, nil })
		}},
		{name: "versions are forgotten", faults: []http.HandlerFunc{send("", false)}, lists: 2, then: func(s *apiServer) {
			s.do(func() { s.version, s.oldest, s.history = 500, 500, nil })
		}},
		{name: "a list in pages", before: func(s *apiServer) {
			s.do(func() { s.page = 1 })
			s.put("svc-0", "IPv4", "a 10.0.0.1 terminating")
		}, lists: 1},
		{name: "a page is gone", before: func(s *apiServer) {
			s.put("svc-0", "IPv4", "a 10.0.0.1 terminating")
			s.page = 1
			s.faults = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { s.list(w, "") }, answer(410)}
		}, says: "answers 410"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newAPIServer(t)
			s.put("svc-1", "IPv4", "a 10.0.0.1")
			before := tt.before
			if before == nil {
				before = func(s *apiServer) {
					s.faults = append([]http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) { s.list(w, "") }}, tt.faults...)
				}
			}
			before(s)
			told := watchSource(t, s.source())
			if tt.before == nil {
				told.is(t, "a@10.0.0.1:3000")
			}
			if tt.then != nil {
				tt.then(s)
			}
			s.put("svc-1", "IPv4", "a 10.0.0.1", "b 10.0.0.2")
			if tt.says != "" {
				told.await(t, tt.says)
			}
			got := told.await(t, "b@10.0.0.2:3000")
			if strings.Contains(got, "x") {
				t.Errorf("told %s", got)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.faults) > 0 || tt.lists > 0 && s.lists != tt.lists {
				t.Errorf("%d lists, want %d; %d faults are left; asked %q", s.lists, tt.lists, len(s.faults), s.asked)
			}
			for _, q := range s.asked {
				if strings.Contains(q, "watch=1") && (!strings.Contains(q, "allowWatchBookmarks=true") || !strings.Contains(q, "timeoutSeconds=") || !strings.Contains(q, "resourceVersion=")) {
					t.Errorf("watched with %s", q)
				}
			}
		})
	}
}

// The token is replaced while the process runs, and so is a server that is away for a while.
func TestKubernetesAccount(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t)
	s.put("svc-1", "IPv4", "a 10.0.0.1")
	told := watchSource(t, s.source())
	told.is(t, "a@10.0.0.1:3000")
	s.setToken(t, "second", false)
	s.CloseClientConnections()
	told.await(t, "error: the API server "+s.URL+` answers 401: "Unauthorized": it doesn't know the token in `)
	s.setToken(t, "second", true)
	s.put("svc-1", "IPv4", "b 10.0.0.2")
	told.is(t, "b@10.0.0.2:3000")

	forbidden := newAPIServer(t)
	forbidden.put("svc-1", "IPv4", "b 10.0.0.2")
	forbidden.do(func() {
		forbidden.faults = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			s.refuse(w, 403, `endpointslices.discovery.k8s.io is forbidden: User "system:serviceaccount:ns:default" cannot list`)
		}}
	})
	second := watchSource(t, forbidden.source())
	got := <-second
	if !strings.Contains(got, "give the service account a Role with get, list and watch for endpointslices") {
		t.Error(got)
	}
	second.is(t, "b@10.0.0.2:3000")

	began := time.Now()
	must(t, os.WriteFile(filepath.Join(s.folder, "ca.crt"), []byte("none"), 0o600))
	watchSource(t, s.source()).await(t, "holds no certificate")
	if time.Since(began) > 10*time.Second {
		t.Error("the error came late")
	}
}
