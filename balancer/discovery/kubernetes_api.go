package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	errGone   = errors.New("the API server has forgotten the version")
	errBroken = errors.New("the watch is broken")
)

const (
	requestTime = 30 * time.Second // for an answer that isn't a watch
	graceTime   = 2 * time.Second  // for all questions about Pods together
	maxAnswer   = 32 << 20
	maxEvent    = 4 << 20 // etcd has no object of more than 1.5 MiB
	maxPages    = 100
	pageSize    = "250"
)

// An api is the way to an API server, with its certificates as they are now.
type api struct {
	k         *Kubernetes
	server    string
	namespace string
	client    *http.Client
	transport *http.Transport
}

func (k *Kubernetes) connect() (*api, error) {
	a := &api{k: k, server: strings.TrimSuffix(k.Server, "/")}
	if a.server == "" {
		port := os.Getenv("KUBERNETES_SERVICE_PORT")
		if port == "" {
			port = "443"
		}
		a.server = "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), port)
	}
	var err error
	if a.namespace, err = k.namespace(); err != nil {
		return nil, err
	}
	dialer := &net.Dialer{
		Timeout: 10 * time.Second,
		// An API server whose machine dies without a word is noticed in 25 s.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	a.transport = &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: requestTime}
	if strings.HasPrefix(a.server, "https:") {
		text, err := os.ReadFile(k.account("ca.crt"))
		if err != nil {
			return nil, fmt.Errorf("the certificates of the cluster: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", k.account("ca.crt"))
		}
		a.transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	a.client = &http.Client{
		Transport:     a.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this server
	}
	return a, nil
}

func (a *api) close() { a.transport.CloseIdleConnections() }

// get asks for a path. The caller closes the body of the answer, whose status is 200.
func (a *api) get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	target := a.server + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "limpet")
	if req.URL.Scheme == "https" {
		token, err := os.ReadFile(a.k.account("token"))
		if err != nil {
			return nil, fmt.Errorf("the service account's token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	res, err := a.client.Do(req)
	if err != nil {
		var known *url.Error
		if errors.As(err, &known) {
			err = known.Err // without the query, which changes
		}
		return nil, fmt.Errorf("%w: %s: %w", errBroken, a.server, err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, a.refusal(res)
	}
	return res, nil
}

// A refusal is an answer with another status than 200.
type refusal struct {
	code       int
	text       string
	retryAfter time.Duration
}

func (r *refusal) Error() string { return r.text }

// Is makes a 410 errGone.
func (r *refusal) Is(target error) bool { return target == errGone && r.code == http.StatusGone }

// retryAfter returns how long the API server wants to be left alone, 0 if it doesn't say.
func retryAfter(err error) time.Duration {
	var r *refusal
	if errors.As(err, &r) {
		return r.retryAfter
	}
	return 0
}

func (a *api) refusal(res *http.Response) error {
	var s status
	_ = json.NewDecoder(io.LimitReader(res.Body, 16<<10)).Decode(&s) // it may be no JSON
	r := &refusal{code: res.StatusCode}
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && n > 0 {
		r.retryAfter = time.Duration(min(n, 60)) * time.Second
	}
	r.text = fmt.Sprintf("the API server %s answers %d", a.server, r.code)
	if s.Message != "" {
		r.text += fmt.Sprintf(": %.300q", s.Message)
	}
	switch r.code {
	case http.StatusUnauthorized:
		r.text += ": it doesn't know the token in " + a.k.account("token")
	case http.StatusForbidden:
		r.text += ": give the service account a Role with get, list and watch for endpointslices in discovery.k8s.io, in the namespace " + a.namespace
	}
	return r
}

func (a *api) slicesPath() string {
	return "/apis/discovery.k8s.io/v1/namespaces/" + a.namespace + "/endpointslices"
}

func (a *api) query(more ...string) url.Values {
	q := url.Values{"labelSelector": {"kubernetes.io/service-name=" + a.k.Service}}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return q
}

// list returns the slices of the Service, and the version from which to watch. It asks for
// the present state, not for one that a cache has had: without a resourceVersion.
func (a *api) list(ctx context.Context) (all map[string]*endpointSlice, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	all = make(map[string]*endpointSlice)
	q := a.query("limit", pageSize)
	for range maxPages {
		var page sliceList
		if err := a.getJSON(ctx, a.slicesPath(), q, &page); err != nil {
			return nil, "", err
		}
		for i := range page.Items {
			all[page.Items[i].Metadata.Name] = &page.Items[i]
		}
		switch {
		case len(all) > maxSlices:
			return nil, "", fmt.Errorf("the Service has more than %d EndpointSlices", maxSlices)
		case page.Metadata.ResourceVersion == "":
			return nil, "", fmt.Errorf("the API server %s answers no list of EndpointSlices", a.server)
		case page.Metadata.Continue == "":
			return all, page.Metadata.ResourceVersion, nil
		}
		q.Set("continue", page.Metadata.Continue)
	}
	return nil, "", errors.New("the list of EndpointSlices has no end")
}

func (a *api) getJSON(ctx context.Context, path string, q url.Values, into any) error {
	res, err := a.get(ctx, path, q)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("%w: the answer of %s: %w", errBroken, a.server, err)
	}
	return nil
}

// watchBegun is the type of an event that isn't the API server's: the watch has begun.
const watchBegun = ""

// An event is one of a watch.
type event struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
	slice  endpointSlice
}

// watch calls each with the events since version, until the API server ends the watch, which
// isn't an error. It returns errBroken if the connection fails, and errGone if the version is
// too old.
func (a *api) watch(ctx context.Context, version string, each func(context.Context, *event) error) error {
	seconds := timeoutSeconds()
	ctx, cancel := context.WithTimeout(ctx, watchTime+requestTime) // for a server that forgets to end it
	defer cancel()
	res, err := a.get(ctx, a.slicesPath(), a.query("watch", "1", "allowWatchBookmarks", "true", "resourceVersion", version, "timeoutSeconds", seconds))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := each(ctx, &event{}); err != nil {
		return err
	}
	body := &bounded{r: res.Body}
	for dec := json.NewDecoder(body); ; {
		body.left = maxEvent
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		if e.Type == "ERROR" {
			return a.failure(e.Object)
		}
		if err := json.Unmarshal(e.Object, &e.slice); err != nil {
			return fmt.Errorf("an event of the API server %s: %w", a.server, err)
		}
		if e.slice.Metadata.ResourceVersion == "" {
			return fmt.Errorf("an event of the API server %s has no version", a.server)
		}
		if err := each(ctx, &e); err != nil {
			return err
		}
	}
}

// failure returns the error that an event of the type ERROR tells.
func (a *api) failure(object []byte) error {
	var s status
	if err := json.Unmarshal(object, &s); err != nil {
		return fmt.Errorf("an error event of the API server %s: %w", a.server, err)
	}
	return &refusal{code: s.Code, text: fmt.Sprintf("the API server %s ends the watch with %d: %.300q", a.server, s.Code, s.Message)}
}

// graces returns the grace periods of Pods that terminate, by UID, as far as they can be
// learnt soon.
func (a *api) graces(ctx context.Context, pods []*pod) map[string]time.Duration {
	ctx, cancel := context.WithTimeout(ctx, graceTime)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	found := make(map[string]time.Duration)
	slots := make(chan struct{}, 8) // questions at once
	for _, p := range pods {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			var answer podObject
			path := "/api/v1/namespaces/" + a.namespace + "/pods/" + url.PathEscape(p.name)
			if err := a.getJSON(ctx, path, nil, &answer); err != nil || answer.Metadata.UID != p.uid {
				return
			}
			if seconds := answer.grace(); seconds > 0 {
				mu.Lock()
				defer mu.Unlock()
				found[p.uid] = time.Duration(min(seconds, maxGrace)) * time.Second
			}
		})
	}
	asking.Wait()
	return found
}

// bounded is a reader of so many bytes.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("an event is too long")
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
