package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/pause"
)

// Kubernetes is a [balancer.Source] of the Pods of a Service. It lists and watches the
// Service's EndpointSlices (discovery.k8s.io/v1) over plain HTTP, with the service account of
// the Pod in which this process runs.
//
// A backend's ID is the name of its Pod, or the address of an endpoint that is no Pod. What
// the conditions of an endpoint mean:
//
//	terminating    it is drained within the Pod's grace period, a tenth shorter but at most
//	               2 s, so that its last clients leave before it is killed. That asks the API
//	               for the Pod; if it doesn't tell, the time is Grace
//	ready          it takes clients
//	else           it keeps its clients and takes no new ones; if no endpoint is ready, all
//	               take clients, and the pool's checks find out which of them can
//
// An endpoint with an IPv4 and an IPv6 address is one backend, at the IPv4 address unless
// IPv6 is set.
//
// The service account needs a Role that allows get, list and watch for endpointslices in the
// API group discovery.k8s.io, and get for pods in the core group.
//
// The fields must not be changed once the source is followed.
type Kubernetes struct {
	Namespace string        // of the Service; "": that of the own Pod
	Service   string        // its name
	Port      string        // the name of its port, or the number that the Pods listen on; "": the only one
	Scheme    string        // of the backends' URLs: http or https, whose certificates must name the address; "": http
	IPv6      bool          // prefer IPv6
	Grace     time.Duration // see [balancer.Target]; a drain's, too, for a Pod whose grace period isn't known

	// Server is the URL of the API server. "" means that of the cluster in which this
	// process runs. Only over https is the service account's token sent, so that
	// http://127.0.0.1:8001 is right for kubectl proxy.
	Server string

	// Account is a folder with the files token, ca.crt and namespace of a service account.
	// The token is read before each request, since it is replaced about each hour, and the
	// certificates before each list. "" means where Kubernetes puts them.
	Account string
}

const (
	accountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"

	// listEvery is how often the slices are listed though no watch has failed. It mends
	// what a watch can't tell: an API server whose data were restored may go on with
	// versions that have been used before.
	listEvery = 10 * time.Minute
	watchTime = 4 * time.Minute // up to a fifth shorter; the API server ends a watch after that
	retryMost = 30 * time.Second
	maxSlices = 1000

	defaultDrain = 30 * time.Second // Kubernetes' own default of terminationGracePeriodSeconds
)

// label matches names of Services and namespaces (RFC 1123 section 2.1).
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// podName matches names of Pods (RFC 1123 subdomains).
var podName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

// Validate reports what is wrong with the fields, or with the surroundings of this process.
func (k *Kubernetes) Validate() error {
	switch {
	case !label.MatchString(k.Service):
		return fmt.Errorf("discovery: Kubernetes.Service %q: want the name of a Service", k.Service)
	case k.Namespace != "" && !label.MatchString(k.Namespace):
		return fmt.Errorf("discovery: Kubernetes.Namespace %q: want the name of a namespace", k.Namespace)
	case k.Server == "" && os.Getenv("KUBERNETES_SERVICE_HOST") == "":
		return errors.New("discovery: KUBERNETES_SERVICE_HOST isn't set, so that this seems to be no Pod of Kubernetes: run it in one, or name the API server, such as http://127.0.0.1:8001 of kubectl proxy")
	case k.Server != "" && !strings.HasPrefix(k.Server, "https://") && !strings.HasPrefix(k.Server, "http://"):
		return fmt.Errorf("discovery: Kubernetes.Server %q: want https://host:port", k.Server)
	}
	if n, err := strconv.Atoi(k.Port); err == nil && (n < 1 || n > 65535) {
		return fmt.Errorf("discovery: Kubernetes.Port %s: want one of 1 to 65535, or a name", k.Port)
	}
	if _, err := k.namespace(); err != nil {
		return err
	}
	return validScheme(k.Scheme)
}

// String returns the source as [Parse] reads it, without options.
func (k *Kubernetes) String() string {
	s := "k8s://" + k.Namespace + "/" + k.Service
	if k.Port != "" {
		s += ":" + k.Port
	}
	return s
}

func (k *Kubernetes) account(file string) string {
	return filepath.Join(cmp.Or(k.Account, accountFolder), file)
}

func (k *Kubernetes) namespace() (string, error) {
	if k.Namespace != "" {
		return k.Namespace, nil
	}
	text, err := os.ReadFile(k.account("namespace"))
	name := strings.TrimSpace(string(text))
	if err == nil && !label.MatchString(name) {
		err = fmt.Errorf("%q is none", name)
	}
	if err != nil {
		return "", fmt.Errorf("discovery: the own namespace: %w: name one, as in k8s://namespace/service", err)
	}
	return name, nil
}

// Watch implements [balancer.Source].
//
// It lists the slices, and then watches them from the version of that list. A watch that ends
// or breaks goes on from the last version that was seen. All else, as a version that the API
// server has forgotten (410 Gone), begins anew with a list, which replaces what was known.
func (k *Kubernetes) Watch(ctx context.Context, update func([]balancer.Target, error)) {
	w := &watcher{k: k, update: update, failures: backoff{most: retryMost}, graces: make(map[string]time.Duration)}
	for ctx.Err() == nil {
		if err := w.cycle(ctx); err != nil && ctx.Err() == nil {
			update(nil, err)
			w.failing = true
			pause.For(ctx, max(w.failures.next(), retryAfter(err)))
		}
	}
}

// A watcher is a Watch. It is used by one goroutine.
type watcher struct {
	k        *Kubernetes
	update   func([]balancer.Target, error)
	api      *api
	slices   map[string]*endpointSlice // by name
	version  string                    // to watch from
	failures backoff
	failing  bool                     // an error was told since the last targets
	graces   map[string]time.Duration // of Pods that terminate, by UID
}

// cycle lists the slices and watches them. It returns nil if it is to be called again at
// once.
func (w *watcher) cycle(ctx context.Context) (err error) {
	if w.api, err = w.k.connect(); err != nil {
		return err
	}
	defer w.api.close()
	if w.slices, w.version, err = w.api.list(ctx); err != nil {
		return err
	}
	w.tell(ctx)
	for listed := time.Now(); time.Since(listed) < listEvery; {
		begun, seen := time.Now(), w.version
		err := w.api.watch(ctx, w.version, w.event)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errGone) && time.Since(listed) > time.Second:
			return nil // as is normal when a watch was broken for long
		case err != nil && !errors.Is(err, errBroken):
			return err
		case err == nil && time.Since(begun) > time.Second:
			w.failures.reset()
			continue
		}
		if seen != w.version {
			w.failures.reset()
		}
		if err != nil && w.failures.last >= 4*time.Second { // it isn't a mere cut
			w.update(nil, err)
			w.failing = true
		}
		if !pause.For(ctx, w.failures.next()) {
			return nil
		}
	}
	return nil
}

// event takes in what a watch tells.
func (w *watcher) event(ctx context.Context, e *event) error {
	name := e.slice.Metadata.Name
	switch e.Type {
	case watchBegun:
		if w.failing {
			w.tell(ctx)
		}
		return nil
	case "ADDED", "MODIFIED":
		if w.slices[name] == nil && len(w.slices) >= maxSlices {
			return fmt.Errorf("the Service has more than %d EndpointSlices", maxSlices)
		}
		w.slices[name] = &e.slice
	case "DELETED":
		delete(w.slices, name)
	case "BOOKMARK":
	default:
		return nil // a type of the future, which has no version that could be relied on
	}
	w.version = e.slice.Metadata.ResourceVersion
	if e.Type != "BOOKMARK" {
		w.tell(ctx)
	}
	return nil
}

// tell tells the targets that follow from the slices.
func (w *watcher) tell(ctx context.Context) {
	all := slices.SortedFunc(maps.Values(w.slices), func(a, b *endpointSlice) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	pods, err := w.k.merge(all)
	if err != nil {
		w.update(nil, err)
		w.failing = true
		return
	}
	w.askGraces(ctx, pods)
	w.failing = false
	w.update(w.k.targets(pods, w.graces), nil)
}

// askGraces asks for the grace periods of the Pods that terminate, once for each Pod.
func (w *watcher) askGraces(ctx context.Context, pods []*pod) {
	old := w.graces
	w.graces = make(map[string]time.Duration)
	var unknown []*pod
	for _, p := range pods {
		switch grace, known := old[p.uid]; {
		case !p.terminating || p.uid == "":
		case known:
			w.graces[p.uid] = grace
		default:
			unknown = append(unknown, p)
		}
	}
	if len(unknown) > 0 {
		maps.Copy(w.graces, w.api.graces(ctx, unknown))
	}
}

func timeoutSeconds() string {
	return strconv.Itoa(int((watchTime - rand.N(watchTime/5)) / time.Second))
}
