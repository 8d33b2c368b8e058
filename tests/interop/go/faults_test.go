package interop

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc/codes"
)

// own starts a server that a test may harm.
func own(t *testing.T, flags ...string) (*scheduler, *hub) {
	t.Helper()
	t.Parallel()
	s := startScheduler(t, flags...)
	return s, connect(t, s.grpc, "default")
}

func TestTwoHundredOrchestrationsGoOnAfterTheServerWasKilled(t *testing.T) {
	s, h := own(t)
	var ran atomic.Int64
	h.work(orchestrators{"steps": func(ctx *task.OrchestrationContext) (any, error) {
		var number int
		if err := ctx.GetInput(&number); err != nil {
			return nil, err
		}
		for step := 0; step < 3; step++ {
			if err := ctx.CallActivity("plusOne", task.WithActivityInput(number)).Await(&number); err != nil {
				return nil, err
			}
			if err := ctx.CreateTimer(5 * time.Millisecond).Await(nil); err != nil {
				return nil, err
			}
		}
		return number, nil
	}}, activities{"plusOne": func(ctx task.ActivityContext) (any, error) { ran.Add(1); return plusOne(ctx) }})
	var ids []api.InstanceID
	for number := 0; number < 200; number++ {
		ids = append(ids, h.start("steps", number))
	}
	until(t, "some are in the middle", func() bool { return ran.Load() >= 150 })
	s.kill()
	s.restart()
	for number, id := range ids {
		equal(t, output[int](h, id), number+3)
	}
}

// workerProcess starts the program beside these tests as a worker that can be killed.
func workerProcess(t *testing.T, program string, s *scheduler, folder string) *exec.Cmd {
	t.Helper()
	host, port, _ := strings.Cut(s.grpc, ":")
	worker := exec.Command(program, host, port, "default", "work", folder)
	output, err := worker.StdoutPipe()
	must(t, err)
	must(t, worker.Start())
	t.Cleanup(func() { _ = worker.Process.Kill(); _ = worker.Wait() })
	line, err := bufio.NewReader(output).ReadString('\n')
	must(t, err)
	equal(t, line, "working\n")
	return worker
}

func TestWhatAKilledWorkerHadInHandIsDoneByTheNext(t *testing.T) {
	// S-13.19, S-4.5, S-4.17, S-5.10: the same item again, answered without a token, counts once.
	program := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-o", program, "./program")
	build.Stderr = os.Stderr
	must(t, build.Run())
	for hold, what := range map[string]string{"hold-episode": "episodes", "hold-activity": "activities"} {
		t.Run(what, func(t *testing.T) {
			s, h := own(t)
			folder := t.TempDir()
			runs := func(what string) int {
				text, _ := os.ReadFile(filepath.Join(folder, what))
				return strings.Count(string(text), "\n")
			}
			must(t, os.WriteFile(filepath.Join(folder, hold), nil, 0o600))
			lost := workerProcess(t, program, s, folder)
			id := h.start("two_steps", nil)
			until(t, "the worker is in the middle", func() bool { return runs(what) == 1 })
			must(t, lost.Process.Kill())
			_ = lost.Wait()
			must(t, os.Remove(filepath.Join(folder, hold)))
			workerProcess(t, program, s, folder)
			equal(t, output[int](h, id), 3)
			if hold == "hold-activity" {
				equal(t, runs("activities"), 3)
			} else {
				equal(t, runs("activities"), 2)
			}
		})
	}
}

func TestAnAnswerThatComesAfterTheItemWasHandedOutAgainChangesNothing(t *testing.T) {
	// S-4.5, S-5.10: the lease runs out while the first run goes on; neither answer has a token.
	_, h := own(t, "--activity-lease-max", "1s")
	var runs atomic.Int64
	release := make(chan struct{})
	h.work(orchestrators{"waits": func(ctx *task.OrchestrationContext) (any, error) {
		var first, second int
		if err := ctx.CallActivity("slow").Await(&first); err != nil {
			return nil, err
		}
		err := ctx.CallActivity("slow").Await(&second)
		return []int{first, second}, err
	}}, activities{"slow": func(task.ActivityContext) (any, error) {
		run := runs.Add(1)
		if run == 1 {
			<-release
			return 1, nil
		}
		return 2, nil
	}})
	id := h.start("waits", nil)
	until(t, "the first run began", func() bool { return runs.Load() >= 1 })
	// A stream whose lease ran out gets nothing more until it answers (S-13.24): another worker takes over.
	second := connect(t, h.address, "default")
	second.work(orchestrators{"waits": func(ctx *task.OrchestrationContext) (any, error) {
		var first, next int
		if err := ctx.CallActivity("slow").Await(&first); err != nil {
			return nil, err
		}
		err := ctx.CallActivity("slow").Await(&next)
		return []int{first, next}, err
	}}, activities{"slow": func(task.ActivityContext) (any, error) { runs.Add(1); return 2, nil }})
	until(t, "it was handed out again", func() bool { return runs.Load() >= 2 })
	close(release)
	result := output[[]int](h, id)
	if len(result) != 2 || result[1] != 2 || (result[0] != 1 && result[0] != 2) {
		t.Fatal(result)
	}
}

func TestOfTwoAnswersToOneEpisodeTheSecondIsIgnored(t *testing.T) {
	// S-4.5, S-4.17: the same episode is with two workers, and neither names a token.
	_, h := own(t, "--orchestration-lease-max", "1s")
	other := connect(t, h.address, "default")
	var ran atomic.Int64
	waits := func(began, release chan struct{}) orchestrators {
		var episodes atomic.Int64
		return orchestrators{"waits": func(ctx *task.OrchestrationContext) (any, error) {
			if episodes.Add(1) == 1 {
				close(began)
				<-release
			}
			var number int
			if err := ctx.CallActivity("plusOne", task.WithActivityInput(1)).Await(&number); err != nil {
				return nil, err
			}
			return number, ctx.WaitForSingleEvent("go", -1).Await(nil)
		}}
	}
	counts := activities{"plusOne": func(ctx task.ActivityContext) (any, error) { ran.Add(1); return plusOne(ctx) }}
	firstBegan, firstRelease := make(chan struct{}), make(chan struct{})
	otherBegan, otherRelease := make(chan struct{}), make(chan struct{})
	h.work(waits(firstBegan, firstRelease), counts)
	id := h.start("waits", nil)
	<-firstBegan
	// The lease runs out, and the other worker gets the same.
	other.work(waits(otherBegan, otherRelease), counts)
	<-otherBegan
	answers := func(wanted int64) func() bool {
		return func() bool { return h.answers.Load()+other.answers.Load() == wanted }
	}
	close(firstRelease)
	until(t, "the first answer counted, and the activity's result is taken", answers(2))
	close(otherRelease)
	until(t, "the second answer came", answers(3))
	must(t, h.RaiseEvent(h.ctx, id, "go"))
	equal(t, output[int](h, id), 2)
	equal(t, ran.Load(), 1)
}

func TestAnAnswerTooLargeToBeReceivedLosesNothingElse(t *testing.T) {
	// S-13.28
	_, h := own(t)
	var runs atomic.Int64
	h.work(orchestrators{"large": func(ctx *task.OrchestrationContext) (any, error) {
		var grows bool
		var size int
		if err := ctx.GetInput(&grows); err != nil {
			return nil, err
		}
		err := ctx.CallActivity("grows", task.WithActivityInput(grows)).Await(&size)
		return size, err
	}}, activities{"grows": func(ctx task.ActivityContext) (any, error) {
		var grows bool
		if err := ctx.GetInput(&grows); err != nil {
			return nil, err
		}
		if grows && runs.Add(1) == 1 {
			return strings.Repeat("x", 70<<20), nil
		}
		return 2, nil
	}})
	large := h.start("large", true)
	until(t, "the answer was made", func() bool { return runs.Load() == 1 })
	other := h.start("large", false)
	recovery, cancel := context.WithTimeout(h.ctx, 10*time.Second)
	defer cancel()
	for _, id := range []api.InstanceID{other, large} {
		state, err := h.WaitForOrchestrationCompletion(recovery, id)
		must(t, err)
		equal(t, state.SerializedOutput, "2")
	}
	equal(t, runs.Load(), 2)
}

func TestAnEpisodesAnswerTooLargeToBeReceivedLosesNothingElse(t *testing.T) {
	// S-13.28: the answer names no lease, so that the streams of its connection end, and what they held comes again.
	_, h := own(t)
	var tries atomic.Int64
	began, release := make(chan struct{}, 100), make(chan struct{})
	h.work(orchestrators{
		"large": func(*task.OrchestrationContext) (any, error) {
			if tries.Add(1) == 1 {
				return strings.Repeat("x", 70<<20), nil
			}
			return "small", nil
		},
		"holds": func(ctx *task.OrchestrationContext) (any, error) {
			var number int
			if err := ctx.GetInput(&number); err != nil {
				return nil, err
			}
			err := ctx.CallActivity("holds", task.WithActivityInput(number)).Await(&number)
			return number, err
		},
	}, activities{"holds": func(ctx task.ActivityContext) (any, error) {
		began <- struct{}{}
		<-release
		return plusOne(ctx)
	}})
	var others []api.InstanceID
	for number := 0; number < 20; number++ {
		others = append(others, h.start("holds", number))
	}
	for range others {
		<-began
	}
	large := h.start("large", nil)
	until(t, "the answer was made", func() bool { return tries.Load() >= 1 })
	recovery, cancel := context.WithTimeout(h.ctx, 10*time.Second)
	defer cancel()
	state, err := h.WaitForOrchestrationCompletion(recovery, large)
	must(t, err)
	equal(t, state.SerializedOutput, `"small"`)
	equal(t, tries.Load(), 2)
	close(release)
	for number, id := range others {
		equal(t, output[int](h, id), number+1)
	}
}

func TestAHistoryThatTheWorkerCannotReceiveFailsItsInstanceAndNothingElse(t *testing.T) {
	// S-13.20, S-1.11: the channel of this SDK takes 4 MiB.
	_, h := own(t, "--oversize-wait", "1s")
	h.work(orchestrators{"collects": func(ctx *task.OrchestrationContext) (any, error) {
		var count, sum int
		if err := ctx.GetInput(&count); err != nil {
			return nil, err
		}
		for number := 0; number < count; number++ {
			var text string
			if err := ctx.CallActivity("makes").Await(&text); err != nil {
				return nil, err
			}
			sum += len(text)
		}
		return sum, nil
	}}, activities{"makes": func(task.ActivityContext) (any, error) { return strings.Repeat("x", 1_000_000-2), nil }})
	before := h.calls.Load()
	told := h.failed(h.start("collects", 5))
	equal(t, told.ErrorType, "HistoryTooLarge")
	equal(t, output[int](h, h.start("collects", 3)), 3*(1_000_000-2))
	// No stream broke over it.
	equal(t, h.calls.Load(), before)
}

func TestAReaderThatDiedWithItsStreamOpenTakesNoMoreWorkOnceItsLeasesRanOut(t *testing.T) {
	// S-13.24: the SDK opens the next stream on the same connection.
	_, h := own(t, "--orchestration-lease-max", "4s")
	h.readerDies.Store(true)
	h.work(orchestrators{"echoes": func(ctx *task.OrchestrationContext) (any, error) {
		var text string
		err := ctx.GetInput(&text)
		return text, err
	}}, nil)
	// The one item that the dead reader got is answered: only what is sent from now on is lost on it.
	equal(t, output[string](h, h.start("echoes", "first")), "first")
	until(t, "the worker has another stream", func() bool { return h.calls.Load() >= 4 })
	batch := func(patience time.Duration) {
		var ids []api.InstanceID
		for number := 0; number < 20; number++ {
			ids = append(ids, h.start("echoes", "x"))
		}
		limited, cancel := context.WithTimeout(h.ctx, patience)
		defer cancel()
		for _, id := range ids {
			_, err := h.WaitForOrchestrationCompletion(limited, id)
			must(t, err)
		}
	}
	batch(14 * time.Second)
	// Faster than a lease runs out: nothing was sent to the stream that nobody reads.
	batch(3500 * time.Millisecond)
}

func TestAWorkerThatStoppedListeningIsReplacedByItsSuccessorOnTheSameConnection(t *testing.T) {
	// S-13.23, S-13.24
	_, h := own(t)
	held := make(chan struct{})
	defer close(held)
	began := make(chan struct{}, 1)
	listening, stop := context.WithCancel(h.ctx)
	must(t, h.tryToWork(listening, orchestrators{"holds": func(ctx *task.OrchestrationContext) (any, error) {
		began <- struct{}{}
		<-held
		return nil, nil
	}}, nil))
	id := h.start("holds", nil)
	<-began
	stop()
	h.work(orchestrators{"holds": func(*task.OrchestrationContext) (any, error) { return "alive", nil }}, nil)
	equal(t, output[string](h, h.start("holds", nil)), "alive")
	equal(t, output[string](h, id), "alive")
}

func TestAWorkerDoesNotStormAServerThatDrainsRefusesOrIsGone(t *testing.T) {
	// S-1.10, S-13.4: fewer than three tries a second.
	for _, how := range []string{"drains", "refuses", "is gone"} {
		t.Run(how, func(t *testing.T) {
			s, h := own(t)
			ends := orchestrators{"ends": func(*task.OrchestrationContext) (any, error) { return nil, nil }}
			h.work(ends, nil)
			h.ended(h.start("ends", nil))
			before := h.calls.Load()
			if how == "drains" {
				s.stop()
			} else {
				s.kill()
			}
			if how == "refuses" {
				s.flags = []string{"--token", "secret-secret-secret"}
				s.restart()
			}
			time.Sleep(3 * time.Second)
			if tries := h.calls.Load() - before; tries >= 9 {
				t.Fatalf("%d tries in three seconds", tries)
			}
			if how == "refuses" {
				s.kill()
				s.flags = nil
			}
			s.restart()
			// The connection itself backs off, too.
			until(t, "it is back", func() bool {
				_, err := h.ScheduleNewOrchestration(h.ctx, "ends", api.WithInstanceID("back"))
				return err == nil || code(err) == codes.AlreadyExists
			})
			h.ended("back")
		})
	}
}

func TestALateAnswerToAnEpisodeThatAnotherWorkerHasAnsweredIsNotTakenForTheNextOnes(t *testing.T) {
	// S-4.4, S-4.17: neither of them has a token.
	_, h := own(t, "--orchestration-lease-max", "1s")
	first, second := make(chan struct{}), make(chan struct{})
	var heldBy, runBy atomic.Int64
	code := func(hold func()) orchestrators {
		return orchestrators{"waits": func(ctx *task.OrchestrationContext) (any, error) {
			hold()
			var a, b int
			if err := ctx.CallActivity("plusOne", task.WithActivityInput(1)).Await(&a); err != nil {
				return nil, err
			}
			hold()
			if err := ctx.CallActivity("plusOne", task.WithActivityInput(10)).Await(&b); err != nil {
				return nil, err
			}
			return a + b, nil
		}}
	}
	h.work(code(func() {
		if heldBy.Add(1) == 1 {
			<-first
		}
	}), activities{"plusOne": plusOne})
	id := h.start("waits", nil)
	until(t, "the first has it", func() bool { return heldBy.Load() == 1 })
	other := connect(t, h.address, "default")
	other.work(code(func() {
		// Once in the first episode, and twice in the second: at the replay, and then where it goes on.
		if runBy.Add(1) == 3 {
			<-second
		}
	}), activities{"plusOne": plusOne})
	until(t, "the second holds the second episode", func() bool { return runBy.Load() == 3 })
	close(first)
	until(t, "the late answer is in", func() bool { return h.answers.Load() >= 1 })
	close(second)
	equal(t, output[int](h, id), 13)
}
