package main

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/internal/need"
)

// deployed reads the flags that a file in deploy/ gives to the gateway, and checks that
// its manager waits some seconds longer for its end than that takes. folder is where the
// manager puts the secrets.
func deployed(t *testing.T, args []string, folder string, patience time.Duration) *config {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"keys", "admin-token"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("5eed", 16)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, folder, dir)
	}
	if !strings.Contains(strings.Join(args, " "), "key-file") {
		t.Error("each replica would make keys of its own")
	}
	cfg, err := parse(args)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	for _, client := range []*redis.Client{cfg.bus, cfg.redis} {
		if client != nil {
			t.Cleanup(func() { client.Close() })
		}
	}
	if takes := cfg.options.LameDuck + max(cfg.drain, time.Second); patience < takes+5*time.Second {
		t.Errorf("the gateway is killed after %v, and takes %v to end", patience, takes)
	}
	if cfg.check.Path == "" || cfg.admin.addr == "" {
		t.Error("no health path, or nothing for operators")
	}
	return cfg
}

// at returns what stands at a path such as "spec.ports.0.name" of an object of JSON.
func at(object any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		switch o := object.(type) {
		case map[string]any:
			object = o[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(o) {
				return nil
			}
			object = o[i]
		default:
			return nil
		}
	}
	return object
}

// The manifests are what an API server takes, and their parts fit to each other and to the
// gateway.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	check := exec.CommandContext(t.Context(), need.Module(t, "deploy/check"), "deploy/gateway.yaml", "deploy/nodes.yaml", "deploy/discover.yaml")
	out, err := check.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	objects := make(map[string]any)
	for line := range strings.Lines(string(out)) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		objects[fmt.Sprint(o["kind"], "/", at(o, "metadata.name"))] = o
	}
	get := func(object, path string) any { return at(objects[object], path) }
	const limpet, node = "map[app:limpet]", "map[app:node]"
	for _, tt := range []struct{ object, path, want string }{
		{"Deployment/limpet", "spec.replicas", "2"},
		{"Deployment/limpet", "spec.selector.matchLabels", limpet},
		{"Deployment/limpet", "spec.template.metadata.labels", limpet},
		{"Deployment/limpet", "spec.template.spec.securityContext.runAsNonRoot", "true"},
		{"Deployment/limpet", "spec.template.spec.securityContext.runAsUser", "65532"}, // the Dockerfile's
		{"Deployment/limpet", "spec.template.spec.containers.0.securityContext.readOnlyRootFilesystem", "true"},
		{"Deployment/limpet", "spec.template.spec.volumes.0.secret.secretName", "limpet"},
		{"Deployment/limpet", "spec.template.spec.containers.0.volumeMounts.0.mountPath", "/etc/limpet"},
		{"Service/limpet", "spec.selector", limpet},
		{"Service/limpet", "spec.ports.0.targetPort", "http"},
		{"PodDisruptionBudget/limpet", "spec.selector.matchLabels", limpet},
		{"PodDisruptionBudget/limpet", "spec.maxUnavailable", "1"},
		{"NetworkPolicy/limpet", "spec.podSelector.matchLabels", limpet},
		{"NetworkPolicy/limpet", "spec.ingress.0.ports.0.port", "http"},
		{"NetworkPolicy/limpet", "spec.ingress.1.ports.0.port", "admin"},
		{"NetworkPolicy/limpet", "spec.ingress.1.from.0.namespaceSelector.matchLabels", "map[kubernetes.io/metadata.name:monitoring]"},
		{"StatefulSet/node", "spec.selector.matchLabels", node},
		{"StatefulSet/node", "spec.template.metadata.labels", node},
		{"StatefulSet/node", "spec.serviceName", "nodes"},
		{"StatefulSet/node", "spec.template.spec.containers.0.ports.0.containerPort", "3000"},
		{"Service/nodes", "spec.selector", node},
		{"Role/limpet", "rules.0.apiGroups", "[discovery.k8s.io]"},
		{"Role/limpet", "rules.0.resources", "[endpointslices]"},
		{"Role/limpet", "rules.0.verbs", "[get list watch]"},
		{"Role/limpet", "rules.1.apiGroups", "[]"}, // the core group's name is empty
		{"Role/limpet", "rules.1.resources", "[pods]"},
		{"Role/limpet", "rules.1.verbs", "[get]"},
		{"RoleBinding/limpet", "roleRef.name", "limpet"},
		{"RoleBinding/limpet", "subjects.0.kind", "ServiceAccount"},
		{"RoleBinding/limpet", "subjects.0.name", "limpet"},
		{"ServiceAccount/limpet", "metadata.name", "limpet"},
		{"Service/nodes", "spec.clusterIP", "None"},
		{"Service/nodes", "spec.ports.0.port", "3000"},
		{"PodDisruptionBudget/nodes", "spec.selector.matchLabels", node},
		{"NetworkPolicy/nodes", "spec.podSelector.matchLabels", node},
		{"NetworkPolicy/nodes", "spec.ingress.0.from.0.podSelector.matchLabels", limpet},
	} {
		if got := fmt.Sprint(get(tt.object, tt.path)); got != tt.want {
			t.Errorf("%s: %s is %s, want %s", tt.object, tt.path, got, tt.want)
		}
	}

	const container = "spec.template.spec.containers.0."
	var args []string
	for _, arg := range get("Deployment/limpet", container+"args").([]any) {
		args = append(args, arg.(string))
	}
	grace, _ := get("Deployment/limpet", "spec.template.spec.terminationGracePeriodSeconds").(float64)
	cfg := deployed(t, args, "/etc/limpet", time.Duration(grace)*time.Second)
	if cfg.bus == nil || cfg.options.LameDuck == 0 || cfg.admin.token == "" {
		t.Error("replicas without a bus, without a lame duck, or without a token on a port that others reach")
	}
	var backends []string
	for b := range cfg.pool.All() {
		backends = append(backends, b.URL().Host)
	}
	var nodes []string
	for i := range int(get("StatefulSet/node", "spec.replicas").(float64)) {
		nodes = append(nodes, fmt.Sprintf("node-%d.nodes:3000", i))
	}
	if !slices.Equal(backends, nodes) {
		t.Errorf("backends %v, nodes %v", backends, nodes)
	}
	ports := fmt.Sprint(get("Deployment/limpet", container+"ports"))
	if want := "[map[containerPort:8080 name:http] map[containerPort:9090 name:admin]]"; ports != want || cfg.listen != ":8080" || cfg.admin.addr != ":9090" {
		t.Errorf("ports %s, and the gateway listens on %s and %s", ports, cfg.listen, cfg.admin.addr)
	}
	handler, page := cfg.adminHandler()
	t.Cleanup(page.Close)
	for _, name := range []string{"readiness", "liveness"} {
		probe := get("Deployment/limpet", container+name+"Probe.httpGet")
		var rec *httptest.ResponseRecorder
		for begin := time.Now(); rec == nil || rec.Code != http.StatusOK && time.Since(begin) < 10*time.Second; {
			// Its replicas may say for a moment what is drained.
			rec = httptest.NewRecorder()
			handler.ServeHTTP(rec, httptest.NewRequest("GET", fmt.Sprint(at(probe, "path")), nil))
			runtime.Gosched()
		}
		if at(probe, "port") != "admin" || rec.Code != http.StatusOK {
			t.Errorf("%s probe %v is answered with %d", name, probe, rec.Code)
		}
	}
}

// unit returns the settings of a unit of systemd by section and name, each with all its
// values.
func unit(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	settings := make(map[string][]string)
	section := ""
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		switch {
		case line == "", line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case ok:
			settings[section+"."+name] = append(settings[section+"."+name], value)
		default:
			t.Errorf("%s: no setting: %q", file, line)
		}
	}
	return settings
}

func TestSystemdUnits(t *testing.T) {
	t.Parallel()
	service, socket := unit(t, "deploy/limpet.service"), unit(t, "deploy/limpet.socket")
	if got := service["Unit.Requires"]; !slices.Equal(got, []string{"limpet.socket"}) {
		t.Errorf("the service requires %q", got)
	}
	if got := socket["Socket.ListenStream"]; len(got) != 1 {
		t.Errorf("the socket's unit listens on %q; the gateway takes one socket", got)
	}
	if n, err := strconv.Atoi(strings.Join(service["Service.LimitNOFILE"], "")); err != nil || n < 1<<20 {
		t.Errorf("LimitNOFILE: %d, %v", n, err)
	}
	patience, err := time.ParseDuration(strings.Join(service["Service.TimeoutStopSec"], ""))
	if err != nil {
		t.Error(err)
	}
	credential, file, _ := strings.Cut(strings.Join(service["Service.LoadCredential"], ""), ":")
	if credential != "keys" || file != "/etc/limpet/keys" {
		t.Errorf("credential %s from %s", credential, file)
	}
	command := strings.Fields(strings.Join(service["Service.ExecStart"], ""))
	if at := slices.Index(command, "-takeover"); at < 0 || filepath.Dir(command[at+1]) != "/run/limpet" {
		t.Errorf("a reload can't hand over: %q", command)
	} else {
		command[at+1] = filepath.Join(t.TempDir(), "takeover")
	}
	for name, want := range map[string]string{"Type": "notify", "NotifyAccess": "all", "ExecReload": "/bin/kill -HUP $MAINPID"} {
		if got := service["Service."+name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	cfg := deployed(t, command[1:], "%d", patience)
	if path := cfg.admin.socket(); path != "/run/limpet/admin.sock" || !slices.Equal(service["Service.RuntimeDirectory"], []string{"limpet"}) {
		t.Errorf("operators' socket %q in a folder that isn't there", path)
	}
}

// systemd finds nothing wrong with the units, and grants the service little.
func TestSystemdVerify(t *testing.T) {
	t.Parallel()
	analyze := need.Program(t, "systemd", "systemd-analyze")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"limpet.service", "limpet.socket"} {
		text, err := os.ReadFile(filepath.Join("deploy", name))
		if err != nil {
			t.Fatal(err)
		}
		// The program must exist.
		text = []byte(strings.ReplaceAll(string(text), "/usr/local/bin/limpet-gateway", exe))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"verify", "--man=no", dir + "/limpet.service", dir + "/limpet.socket"},
		{"security", "--offline=true", "--threshold=20", dir + "/limpet.service"}, // of 100
	} {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// instructions returns the lines of the Dockerfile, each as its instruction and the rest.
func instructions(t *testing.T) (lines [][2]string) {
	t.Helper()
	text, err := os.ReadFile("deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		lines = append(lines, [2]string{name, strings.TrimSpace(rest)})
	}
	return lines
}

// The image holds a static program that isn't root's, and certificates, and nothing else.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	version := strings.Split(strings.TrimPrefix(runtime.Version(), "go"), ".")
	want := [][2]string{
		{"FROM", "golang:" + version[0] + "." + version[1] + " AS build"},
		{"WORKDIR", "/src"},
		{"COPY", "go.mod go.sum ./"},
		{"RUN", "go mod download"},
		{"COPY", ". ."},
		{"RUN", ""}, // go build, below
		{"FROM", "scratch"},
		{"COPY", "--from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt"},
		{"COPY", "--from=build /gateway /gateway"},
		{"USER", "65532:65532"},
		{"EXPOSE", "8080"},
		{"ENTRYPOINT", `["/gateway"]`},
	}
	got := instructions(t)
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	var build string
	for i := range want {
		if want[i] == [2]string{"RUN", ""} && got[i][0] == "RUN" {
			build = got[i][1]
		} else if got[i] != want[i] {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
	if testing.Short() || runtime.GOOS == "windows" {
		t.Skip("the build takes long, or has no shell")
	}

	program := filepath.Join(t.TempDir(), "gateway")
	sh := exec.CommandContext(t.Context(), "/bin/sh", "-ec", strings.Replace(build, "-o /gateway ", "-o "+program+" ", 1))
	sh.Dir = "../.." // WORKDIR has a copy of the repository
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	if out, err := exec.CommandContext(t.Context(), program, "-h").Output(); err != nil || !strings.Contains(string(out), "-backend") {
		t.Errorf("gateway -h: %v\n%s", err, out)
	}
	if runtime.GOOS != "linux" {
		return
	}
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if libraries, err := file.ImportedLibraries(); len(libraries) > 0 {
		t.Errorf("it isn't static: %q, %v", libraries, err)
	}
}
