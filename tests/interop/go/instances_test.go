package interop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const limit = 1 << 20

// echoes is an orchestrator that passes its input through an activity.
func echoes(ctx *task.OrchestrationContext) (any, error) {
	var text string
	if err := ctx.GetInput(&text); err != nil {
		return nil, err
	}
	err := ctx.CallActivity("echo", task.WithActivityInput(text)).Await(&text)
	return text, err
}

func TestEventsArriveInOrderBeforeAndAfterTheStart(t *testing.T) {
	// S-6.6, S-8.1, S-8.2
	h := freshHub(t)
	h.work(orchestrators{"listens": func(ctx *task.OrchestrationContext) (any, error) {
		var heard []int
		for number := 0; number < 6; number++ {
			var next int
			if err := ctx.WaitForSingleEvent("e", -1).Await(&next); err != nil {
				return nil, err
			}
			heard = append(heard, next)
		}
		return fmt.Sprint(heard), nil
	}}, nil)
	id := h.start("listens", nil, api.WithStartTime(time.Now().Add(500*time.Millisecond)))
	for number := 0; number < 3; number++ {
		must(t, h.RaiseEvent(h.ctx, id, "e", api.WithEventPayload(number)))
	}
	equal(t, h.state(id).RuntimeStatus, api.RUNTIME_STATUS_PENDING)
	_, err := h.WaitForOrchestrationStart(h.ctx, id)
	must(t, err)
	for number := 3; number < 6; number++ {
		must(t, h.RaiseEvent(h.ctx, id, "E", api.WithEventPayload(number)))
	}
	equal(t, output[string](h, id), "[0 1 2 3 4 5]")
}

func TestAnEventThatNobodyCanTakeIsDropped(t *testing.T) {
	// S-8.4, S-8.5
	h := freshHub(t)
	h.work(orchestrators{"listens": listens}, nil)
	must(t, h.RaiseEvent(h.ctx, "later", "go", api.WithEventPayload("too early")))
	id := h.start("listens", nil, api.WithInstanceID("later"))
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithEventPayload("right")))
	equal(t, output[string](h, id), "right")
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithEventPayload("too late")))
}

func TestAWaitForAnEventWithATimeLimitIsCancelled(t *testing.T) {
	// S-6.1: the time limit is a timer beside the wait.
	h := freshHub(t)
	h.work(orchestrators{"impatient": func(ctx *task.OrchestrationContext) (any, error) {
		err := ctx.WaitForSingleEvent("never", 100*time.Millisecond).Await(nil)
		return errors.Is(err, task.ErrTaskCanceled), nil
	}}, nil)
	equal(t, output[bool](h, h.start("impatient", nil)), true)
}

func TestASuspendedOrchestrationHearsEventsOnlyAfterItIsResumed(t *testing.T) {
	// S-8.7
	h := freshHub(t)
	h.work(orchestrators{"listens": listens}, nil)
	id := h.start("listens", nil)
	_, err := h.WaitForOrchestrationStart(h.ctx, id)
	must(t, err)
	must(t, h.SuspendOrchestration(h.ctx, id, "wait"))
	equal(t, h.state(id).RuntimeStatus, api.RUNTIME_STATUS_SUSPENDED)
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithEventPayload("late")))
	short, cancel := context.WithTimeout(h.ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := h.WaitForOrchestrationCompletion(short, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("it went on: %v", err)
	}
	must(t, h.ResumeOrchestration(h.ctx, id, "go on"))
	equal(t, output[string](h, id), "late")
}

func TestTerminatingTakesTheChildrenAlongOrNotAsTold(t *testing.T) {
	// S-9.7, S-9.8: this SDK's client takes them along unless told otherwise.
	for name, recursive := range map[string]bool{"along": true, "alone": false} {
		t.Run(name, func(t *testing.T) {
			h := freshHub(t)
			h.work(orchestrators{
				"parent": func(ctx *task.OrchestrationContext) (any, error) {
					return nil, ctx.CallSubOrchestrator("child", task.WithSubOrchestrationInstanceID("left")).Await(nil)
				},
				"child": listens,
			}, nil)
			id := h.start("parent", nil)
			_, err := h.WaitForOrchestrationStart(h.ctx, "left")
			must(t, err)
			must(t, h.TerminateOrchestration(h.ctx, id, api.WithOutput("enough"), api.WithRecursiveTerminate(recursive)))
			state := h.ended(id)
			equal(t, state.RuntimeStatus, api.RUNTIME_STATUS_TERMINATED)
			equal(t, state.SerializedOutput, `"enough"`)
			if recursive {
				equal(t, h.ended("left").RuntimeStatus, api.RUNTIME_STATUS_TERMINATED)
				return
			}
			must(t, h.RaiseEvent(h.ctx, "left", "go", api.WithEventPayload("alone")))
			equal(t, output[string](h, "left"), "alone")
		})
	}
}

func TestASuspendedOrchestrationCanBeTerminated(t *testing.T) {
	// S-9.10, S-4.15: this SDK answers with nothing while it is suspended.
	h := freshHub(t)
	h.work(orchestrators{"listens": listens}, nil)
	id := h.start("listens", nil)
	_, err := h.WaitForOrchestrationStart(h.ctx, id)
	must(t, err)
	must(t, h.SuspendOrchestration(h.ctx, id, ""))
	must(t, h.TerminateOrchestration(h.ctx, id, api.WithRawOutput("7")))
	state := h.ended(id)
	equal(t, state.RuntimeStatus, api.RUNTIME_STATUS_TERMINATED)
	equal(t, state.SerializedOutput, "7")
	// What has ended is not terminated again, and nobody minds (S-9.7).
	must(t, h.TerminateOrchestration(h.ctx, id, api.WithRawOutput("8")))
	equal(t, h.state(id).SerializedOutput, "7")
}

func TestNobodyCanBeSuspendedWhoDoesNotExist(t *testing.T) {
	// S-9.2, S-9.4
	h := freshHub(t)
	equal(t, code(h.SuspendOrchestration(h.ctx, "nobody", "")), codes.NotFound)
	equal(t, code(h.ResumeOrchestration(h.ctx, "nobody", "")), codes.NotFound)
}

func TestAnInstanceIsPendingUntilItsFirstStepIsDone(t *testing.T) {
	// S-2.4, S-2.11: created no earlier than the client's clock said.
	h := freshHub(t)
	began, release := make(chan struct{}, 1), make(chan struct{})
	h.work(orchestrators{"slow": func(*task.OrchestrationContext) (any, error) {
		began <- struct{}{}
		<-release
		return nil, nil
	}}, nil)
	before := time.Now()
	id := h.start("slow", nil)
	<-began
	short, cancel := context.WithTimeout(h.ctx, 200*time.Millisecond)
	defer cancel()
	_, err := h.WaitForOrchestrationStart(short, id)
	equal(t, errors.Is(err, context.DeadlineExceeded), true)
	state := h.state(id)
	equal(t, state.RuntimeStatus, api.RUNTIME_STATUS_PENDING)
	if state.CreatedAt.Before(before) {
		t.Fatalf("created at %v, before %v", state.CreatedAt, before)
	}
	close(release)
	h.ended(id)
}

func code(err error) codes.Code {
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	return status.Code(err)
}

func TestAnIdThatExistsIsRefusedIgnoredOrTakenOver(t *testing.T) {
	// S-10.2, S-10.3: the older layout of the policy, with its action.
	h := freshHub(t)
	h.work(orchestrators{"listens": listens}, nil)
	policy := func(action api.CreateOrchestrationAction) api.NewOrchestrationOptions {
		return api.WithOrchestrationIdReusePolicy(&api.OrchestrationIdReusePolicy{
			Action:          action,
			OperationStatus: []api.OrchestrationStatus{api.RUNTIME_STATUS_PENDING, api.RUNTIME_STATUS_RUNNING, api.RUNTIME_STATUS_COMPLETED},
		})
	}
	id := h.start("listens", nil, api.WithInstanceID("one"))
	_, err := h.WaitForOrchestrationStart(h.ctx, id)
	must(t, err)
	created := h.state(id).CreatedAt
	_, err = h.ScheduleNewOrchestration(h.ctx, "listens", api.WithInstanceID("one"))
	equal(t, code(err), codes.AlreadyExists)
	_, err = h.ScheduleNewOrchestration(h.ctx, "listens", api.WithInstanceID("one"), policy(api.REUSE_ID_ACTION_ERROR))
	equal(t, code(err), codes.AlreadyExists)
	if !strings.Contains(err.Error(), "orchestration instance already exists") {
		t.Fatal(err) // S-10.4
	}
	// Its status is not one of those listed.
	failed := api.WithOrchestrationIdReusePolicy(&api.OrchestrationIdReusePolicy{
		Action:          api.REUSE_ID_ACTION_TERMINATE,
		OperationStatus: []api.OrchestrationStatus{api.RUNTIME_STATUS_FAILED},
	})
	_, err = h.ScheduleNewOrchestration(h.ctx, "listens", api.WithInstanceID("one"), failed)
	equal(t, code(err), codes.AlreadyExists)
	h.start("listens", nil, api.WithInstanceID("one"), policy(api.REUSE_ID_ACTION_IGNORE))
	equal(t, h.state(id).CreatedAt, created)
	h.start("listens", nil, api.WithInstanceID("one"), policy(api.REUSE_ID_ACTION_TERMINATE))
	if !h.state(id).CreatedAt.After(created) {
		t.Fatal("it was not taken over")
	}
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithEventPayload("second")))
	equal(t, output[string](h, id), "second")
	_, err = h.ScheduleNewOrchestration(h.ctx, "listens", api.WithInstanceID("one"), policy(api.REUSE_ID_ACTION_ERROR))
	equal(t, code(err), codes.AlreadyExists)
	h.start("listens", nil, api.WithInstanceID("one"))
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithEventPayload("third")))
	equal(t, output[string](h, id), "third")
}

func TestAMissingInstanceIsNotFoundAndPurgedOnesAreGone(t *testing.T) {
	// S-11.1, S-11.19
	h := freshHub(t)
	h.work(orchestrators{"echoes": echoes}, activities{"echo": echo})
	_, err := h.FetchOrchestrationMetadata(h.ctx, "nobody")
	equal(t, errors.Is(err, api.ErrInstanceNotFound), true)
	equal(t, errors.Is(h.PurgeOrchestrationState(h.ctx, "nobody"), api.ErrInstanceNotFound), true)
	id := h.start("echoes", "x")
	equal(t, output[string](h, id), "x")
	must(t, h.PurgeOrchestrationState(h.ctx, id))
	_, err = h.FetchOrchestrationMetadata(h.ctx, id)
	equal(t, errors.Is(err, api.ErrInstanceNotFound), true)
}

func TestAPurgeTakesTheChildrenAlongOrNotAsToldAndNothingThatIsActive(t *testing.T) {
	// S-11.18, S-11.19
	h := freshHub(t)
	h.work(orchestrators{"parent": parentOf("a-child"), "child": child, "listens": listens}, nil)
	for _, recursive := range []bool{false, true} {
		id := h.start("parent", nil)
		output[string](h, id)
		must(t, h.PurgeOrchestrationState(h.ctx, id, api.WithRecursivePurge(recursive)))
		_, err := h.FetchOrchestrationMetadata(h.ctx, id)
		equal(t, errors.Is(err, api.ErrInstanceNotFound), true)
		_, err = h.FetchOrchestrationMetadata(h.ctx, "a-child")
		equal(t, errors.Is(err, api.ErrInstanceNotFound), recursive)
	}
	id := h.start("listens", nil)
	equal(t, code(h.PurgeOrchestrationState(h.ctx, id)), codes.FailedPrecondition)
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithEventPayload("still there")))
	equal(t, output[string](h, id), "still there")
}

func TestAWaitEndsWithItsDeadlineOrWithTheInstance(t *testing.T) {
	// S-11.6, S-11.7
	h := freshHub(t)
	h.work(orchestrators{"listens": listens}, nil)
	short, cancel := context.WithTimeout(h.ctx, 200*time.Millisecond)
	defer cancel()
	_, err := h.WaitForOrchestrationStart(short, "nobody")
	equal(t, errors.Is(err, context.DeadlineExceeded), true)
	id := h.start("listens", nil)
	done := make(chan error)
	go func() {
		// No deadline.
		_, err := h.WaitForOrchestrationCompletion(h.ctx, id)
		done <- err
	}()
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithEventPayload("x")))
	must(t, <-done)
}

func TestPayloadsAreFetchedOnlyIfAskedFor(t *testing.T) {
	// S-11.2
	h := freshHub(t)
	h.work(orchestrators{"echoes": echoes}, activities{"echo": echo})
	id := h.start("echoes", "x")
	h.ended(id)
	state, err := h.FetchOrchestrationMetadata(h.ctx, id, api.WithFetchPayloads(false))
	must(t, err)
	equal(t, state.SerializedInput+state.SerializedOutput, "")
}

func TestAPayloadOfAMillionBytesGoesThrough(t *testing.T) {
	// S-14.1
	h := freshHub(t)
	h.work(orchestrators{"echoes": echoes}, activities{"echo": echo})
	payload := strings.Repeat("x", 1_000_000-2)
	equal(t, output[string](h, h.start("echoes", payload)), payload)
}

func TestWhatAClientSendsOneByteOverTheLimitIsRefusedByName(t *testing.T) {
	// S-14.3
	h := freshHub(t)
	id := h.start("listens", nil)
	_, err := h.ScheduleNewOrchestration(h.ctx, "echoes", api.WithRawInput(strings.Repeat("x", limit+1)))
	for what, err := range map[string]error{
		"input":  err,
		"event":  h.RaiseEvent(h.ctx, id, "go", api.WithRawEventData(strings.Repeat("x", limit+1))),
		"output": h.TerminateOrchestration(h.ctx, id, api.WithRawOutput(strings.Repeat("x", limit+1))),
	} {
		equal(t, code(err), codes.InvalidArgument)
		if !strings.Contains(err.Error(), fmt.Sprint(limit)) || !strings.Contains(err.Error(), fmt.Sprint(limit+1)) {
			t.Fatal(what, err)
		}
	}
	h.work(orchestrators{"listens": func(ctx *task.OrchestrationContext) (any, error) {
		var heard string
		err := ctx.WaitForSingleEvent("go", -1).Await(&heard)
		return len(heard), err
	}}, nil)
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithRawEventData(`"`+strings.Repeat("x", limit-2)+`"`)))
	equal(t, output[int](h, id), limit-2)
}

func TestAnOrchestrationWhoseAnswerIsOneByteOverTheLimitFailsByName(t *testing.T) {
	// S-14.4
	h := freshHub(t)
	makes := func(size int) string { return strings.Repeat("x", size) }
	h.work(orchestrators{
		"output": func(ctx *task.OrchestrationContext) (any, error) {
			var size int
			err := ctx.GetInput(&size)
			return makes(size - 2), err
		},
		"status": func(ctx *task.OrchestrationContext) (any, error) {
			var size int
			err := ctx.GetInput(&size)
			ctx.SetCustomStatus(makes(size))
			return "", err
		},
		"call": func(ctx *task.OrchestrationContext) (any, error) {
			var size int
			if err := ctx.GetInput(&size); err != nil {
				return nil, err
			}
			return "", ctx.CallActivity("takes", task.WithRawActivityInput(makes(size))).Await(nil)
		},
	}, activities{"takes": func(task.ActivityContext) (any, error) { return nil, nil }})
	for _, name := range []string{"output", "status", "call"} {
		output[string](h, h.start(name, limit))
		told := h.failed(h.start(name, limit+1))
		equal(t, told.ErrorType, "PayloadTooLarge")
		equal(t, told.IsNonRetriable, true)
	}
}

func TestAResultOneByteOverTheLimitFailsTheTaskAndNothingElse(t *testing.T) {
	// S-14.4
	h := freshHub(t)
	h.work(orchestrators{"large": func(ctx *task.OrchestrationContext) (any, error) {
		var size int
		var text string
		if err := ctx.GetInput(&size); err != nil {
			return nil, err
		}
		if err := ctx.CallActivity("makes", task.WithActivityInput(size)).Await(&text); err != nil {
			return err.Error(), nil
		}
		return fmt.Sprint(len(text)), nil
	}}, activities{"makes": func(ctx task.ActivityContext) (any, error) {
		var size int
		err := ctx.GetInput(&size)
		return strings.Repeat("x", size), err
	}})
	equal(t, output[string](h, h.start("large", limit-2)), fmt.Sprint(limit-2))
	if told := output[string](h, h.start("large", limit-1)); !strings.Contains(told, fmt.Sprint(limit)) {
		t.Fatal(told)
	}
	equal(t, output[string](h, h.start("large", 3)), "3")
}

func TestLettersOfAllScriptsSurvive(t *testing.T) {
	// S-8.3, S-14.2: payloads, ids and names are never interpreted.
	h := freshHub(t)
	h.work(orchestrators{"echoes": echoes}, activities{"echo": echo})
	text := "Grüße, 世界, שלום, 🦀 \u0001 \"\\"
	id := h.start("echoes", text, api.WithInstanceID("ид-世界-🦀"))
	equal(t, id, "ид-世界-🦀")
	equal(t, output[string](h, id), text)
}

func TestTheHubOfTheMetadataKeepsInstancesApartAndWithoutItTheFallbackServes(t *testing.T) {
	// S-1.5, S-1.6
	h := freshHub(t)
	h.start("echoes", "x", api.WithInstanceID("here"))
	other := connect(t, sharedScheduler(t).grpc, "go-nobodys")
	_, err := other.FetchOrchestrationMetadata(h.ctx, "here")
	equal(t, errors.Is(err, api.ErrInstanceNotFound), true)
	nowhere := connect(t, sharedScheduler(t).grpc, "")
	id := nowhere.start("echoes", "x")
	byName := connect(t, sharedScheduler(t).grpc, "default")
	equal(t, byName.state(id).Name, "echoes")
}

func TestAHubThatDoesNotExistIsRefusedByName(t *testing.T) {
	// S-1.7, S-1.10: also by Hello, or the worker would reconnect without a pause.
	s, _ := own(t)
	h := connect(t, s.grpc, "nowhere")
	_, err := h.ScheduleNewOrchestration(h.ctx, "echoes")
	equal(t, code(err), codes.NotFound)
	if !strings.Contains(err.Error(), "nowhere") {
		t.Fatal(err)
	}
	equal(t, code(h.tryToWork(h.ctx, orchestrators{"echoes": echoes}, nil)), codes.NotFound)
}

func TestAFinishedInstanceStartsAgainWithTheSameIdAndInput(t *testing.T) {
	// S-9.21 by hand: this SDK has no restart.
	h := freshHub(t)
	h.work(orchestrators{"echoes": echoes}, activities{"echo": echo})
	id := h.start("echoes", "again", api.WithInstanceID("restarted"))
	equal(t, output[string](h, id), "again")
	state := h.state(id)
	again, err := h.ScheduleNewOrchestration(h.ctx, state.Name, api.WithInstanceID(id), api.WithRawInput(state.SerializedInput))
	must(t, err)
	equal(t, output[string](h, again), "again")
}
