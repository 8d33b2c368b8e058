// Package interop runs the published Go SDK against the real server: the binary that MAINSPRING_BIN
// names, else the debug build of this repository.
//
// Version 0.6.0 of the SDK cannot do, so that nothing here tests: versions and tags, queries of many instances, reading histories,
// purges other than by id, entities, work-item filters, restart and rewind (the restart is made by hand), events from one
// orchestration to another, completion tokens. Its client throws failure details away: the tests read them from the
// response on its way to the client.
package interop

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/backend"
	"github.com/microsoft/durabletask-go/client"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// patience only ends a hang.
const patience = 90 * time.Second

// scheduler is the real server as a process, on a folder of its own and ports that the system chose.
type scheduler struct {
	t       testing.TB
	folder  string
	flags   []string
	grpc    string
	health  string
	process *exec.Cmd
}

func startScheduler(t testing.TB, flags ...string) *scheduler {
	t.Helper()
	s := &scheduler{t: t, folder: t.TempDir(), flags: flags, grpc: "127.0.0.1:0", health: "127.0.0.1:0"}
	s.restart()
	t.Cleanup(func() {
		s.kill()
		if log, err := os.ReadFile(s.log()); err == nil && strings.Contains(string(log), "panicked at") {
			t.Errorf("the server panicked\n%s", log)
		}
	})
	return s
}

func (s *scheduler) log() string { return filepath.Join(s.folder, "server.log") }

// restart starts the process, again on the same folder and ports if it was killed.
func (s *scheduler) restart() {
	s.t.Helper()
	binary := cmp.Or(os.Getenv("MAINSPRING_BIN"), "../../../target/debug/mainspring")
	arguments := append([]string{"serve", "--data-dir", filepath.Join(s.folder, "data"),
		"--grpc-addr", s.grpc, "--health-addr", s.health}, s.flags...)
	s.process = exec.Command(binary, arguments...)
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(s.t, err)
	defer log.Close()
	s.process.Stderr = log
	output, err := s.process.StdoutPipe()
	must(s.t, err)
	must(s.t, s.process.Start())
	lines := bufio.NewScanner(output)
	found := 0
	for found < 2 && lines.Scan() {
		if address, ok := strings.CutPrefix(lines.Text(), "grpc listening on "); ok {
			s.grpc, found = address, found+1
		}
		if address, ok := strings.CutPrefix(lines.Text(), "health listening on "); ok {
			s.health, found = address, found+1
		}
	}
	if found < 2 {
		text, _ := os.ReadFile(s.log())
		s.t.Fatalf("the server ended at its start\n%s", text)
	}
	go func() {
		for lines.Scan() {
		}
	}()
}

// kill ends the process as a power cut would.
func (s *scheduler) kill() {
	if s.process != nil {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
		s.process = nil
	}
}

// stop asks the process to drain and waits until it is gone.
func (s *scheduler) stop() {
	must(s.t, s.process.Process.Signal(syscall.SIGTERM))
	must(s.t, s.process.Wait())
	s.process = nil
}

// hub is a task hub as a user of the SDK reaches it: a connection whose interceptors name the hub.
type hub struct {
	*client.TaskHubGrpcClient
	t       testing.TB
	ctx     context.Context
	address string
	// calls counts how often a worker said hello or asked for work items.
	calls atomic.Int64
	// answers counts the episodes that the scheduler has taken the answer to.
	answers atomic.Int64
	// readerDies makes the next stream's reader stop after its first work item, with the stream still open.
	readerDies atomic.Bool
	// failure holds the failure details of each instance that was last read as failed.
	failure sync.Map
}

// failureDetails are what a failed instance tells of its failure.
type failureDetails struct {
	ErrorType      string
	ErrorMessage   string
	IsNonRetriable bool
}

// noteFailure keeps what the SDK's client throws away of a response.
func (h *hub) noteFailure(reply any) {
	message, ok := reply.(proto.Message)
	if !ok {
		return
	}
	text, err := protojson.Marshal(message)
	must(h.t, err)
	var read struct {
		OrchestrationState struct {
			InstanceID     string `json:"instanceId"`
			FailureDetails *failureDetails
		}
	}
	must(h.t, json.Unmarshal(text, &read))
	if state := read.OrchestrationState; state.FailureDetails != nil {
		h.failure.Store(api.InstanceID(state.InstanceID), *state.FailureDetails)
	}
}

// failed waits for the end of an instance that has to fail, and gives its failure details.
func (h *hub) failed(id api.InstanceID) failureDetails {
	h.t.Helper()
	state := h.ended(id)
	if state.RuntimeStatus != api.RUNTIME_STATUS_FAILED {
		h.t.Fatalf("%s is %v: %s", id, state.RuntimeStatus, state.SerializedOutput)
	}
	details, ok := h.failure.Load(id)
	if !ok {
		h.t.Fatalf("%s failed without details", id)
	}
	return details.(failureDetails)
}

// deadReader is a stream that is open but read only once.
type deadReader struct {
	grpc.ClientStream
	received int
}

func (d *deadReader) RecvMsg(message any) error {
	if d.received > 0 {
		return status.Error(codes.Unavailable, "the reader died")
	}
	d.received++
	return d.ClientStream.RecvMsg(message)
}

// connect opens a hub; an empty name leaves the choice to the scheduler.
func connect(t testing.TB, address, name string) *hub {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &hub{t: t, ctx: ctx, address: address}
	named := func(ctx context.Context) context.Context {
		if name == "" {
			return ctx
		}
		return metadata.AppendToOutgoingContext(ctx, "taskhub", name)
	}
	connection, err := grpc.Dial(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			if strings.HasSuffix(method, "/Hello") {
				h.calls.Add(1)
			}
			err := invoke(named(ctx), method, request, reply, cc, options...)
			if err == nil && strings.HasSuffix(method, "/CompleteOrchestratorTask") {
				h.answers.Add(1)
			}
			if err == nil && (strings.HasSuffix(method, "/GetInstance") || strings.HasSuffix(method, "/WaitForInstanceCompletion")) {
				h.noteFailure(reply)
			}
			return err
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			h.calls.Add(1)
			opened, err := stream(named(ctx), desc, cc, method, options...)
			if err == nil && h.readerDies.CompareAndSwap(true, false) {
				return &deadReader{ClientStream: opened}, nil
			}
			return opened, err
		}))
	must(t, err)
	h.TaskHubGrpcClient = client.NewTaskHubGrpcClient(connection, quiet{})
	t.Cleanup(func() { cancel(); connection.Close() })
	return h
}

// quiet is a logger that says nothing.
type quiet struct{ backend.Logger }

func (quiet) Debug(...any)          {}
func (quiet) Debugf(string, ...any) {}
func (quiet) Info(...any)           {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Warn(...any)           {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Error(...any)          {}
func (quiet) Errorf(string, ...any) {}

var (
	shared     *scheduler
	sharedOnce sync.Once
	hubs       atomic.Int64
)

// TestMain ends the shared server.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		shared.kill()
		os.RemoveAll(shared.folder)
	}
	os.Exit(code)
}

// freshHub opens a hub of the shared server that no other test has.
func freshHub(t *testing.T) *hub {
	t.Helper()
	t.Parallel()
	return connect(t, sharedScheduler(t).grpc, fmt.Sprintf("go-%d", hubs.Add(1)))
}

func sharedScheduler(t *testing.T) *scheduler {
	sharedOnce.Do(func() {
		folder, err := os.MkdirTemp("", "mainspring-go-")
		must(t, err)
		shared = &scheduler{t: t, folder: folder, flags: []string{"--dynamic-task-hubs"}, grpc: "127.0.0.1:0", health: "127.0.0.1:0"}
		shared.restart()
	})
	return shared
}

// work starts a worker with these orchestrators and activities.
func (h *hub) work(orchestrators map[string]task.Orchestrator, activities map[string]task.Activity) {
	h.t.Helper()
	must(h.t, h.tryToWork(h.ctx, orchestrators, activities))
}

func (h *hub) tryToWork(ctx context.Context, orchestrators map[string]task.Orchestrator, activities map[string]task.Activity) error {
	registry := task.NewTaskRegistry()
	for name, code := range orchestrators {
		must(h.t, registry.AddOrchestratorN(name, code))
	}
	for name, code := range activities {
		must(h.t, registry.AddActivityN(name, code))
	}
	return h.StartWorkItemListener(ctx, registry)
}

// start starts an orchestration and gives its id.
func (h *hub) start(name string, input any, options ...api.NewOrchestrationOptions) api.InstanceID {
	h.t.Helper()
	if input != nil {
		options = append(options, api.WithInput(input))
	}
	id, err := h.ScheduleNewOrchestration(h.ctx, name, options...)
	must(h.t, err)
	return id
}

// ended waits for the end of an instance.
func (h *hub) ended(id api.InstanceID) *api.OrchestrationMetadata {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	defer cancel()
	state, err := h.WaitForOrchestrationCompletion(ctx, id)
	must(h.t, err)
	return state
}

// state is how an instance is now.
func (h *hub) state(id api.InstanceID) *api.OrchestrationMetadata {
	h.t.Helper()
	state, err := h.FetchOrchestrationMetadata(h.ctx, id)
	must(h.t, err)
	return state
}

// output waits for the end of an instance that has to complete, and reads its output.
func output[T any](h *hub, id api.InstanceID) T {
	h.t.Helper()
	state := h.ended(id)
	var value T
	if state.RuntimeStatus != api.RUNTIME_STATUS_COMPLETED {
		h.t.Fatalf("%s is %v: %s", id, state.RuntimeStatus, state.SerializedOutput)
	}
	must(h.t, json.Unmarshal([]byte(state.SerializedOutput), &value))
	return value
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// until waits until something is true.
func until(t testing.TB, what string, isTrue func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !isTrue(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}
