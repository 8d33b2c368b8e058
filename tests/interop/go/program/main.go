// Program is a Go program beside others: a client that is given one thing to do, or a worker that can be killed.
//
//	HOST PORT HUB start NAME ID INPUT      prints the id
//	HOST PORT HUB event ID NAME TEXT
//	HOST PORT HUB wait ID                  prints the output, as stored
//	HOST PORT HUB query ID                 prints the status
//	HOST PORT HUB work FOLDER              works until it is killed; see work
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/backend"
	"github.com/microsoft/durabletask-go/client"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	hub := arguments[2]
	named := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "taskhub", hub)
	}
	connection, err := grpc.Dial(arguments[0]+":"+arguments[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(named(ctx), method, request, reply, cc, options...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(named(ctx), desc, cc, method, options...)
		}))
	if err != nil {
		return err
	}
	defer connection.Close()
	taskHub := client.NewTaskHubGrpcClient(connection, backend.DefaultLogger())
	ctx := context.Background()
	switch arguments[3] {
	case "start":
		id, err := taskHub.ScheduleNewOrchestration(ctx, arguments[4], api.WithInstanceID(api.InstanceID(arguments[5])), api.WithInput(arguments[6]))
		if err != nil {
			return err
		}
		fmt.Println(id)
	case "event":
		return taskHub.RaiseEvent(ctx, api.InstanceID(arguments[4]), arguments[5], api.WithEventPayload(arguments[6]))
	case "wait":
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		state, err := taskHub.WaitForOrchestrationCompletion(limited, api.InstanceID(arguments[4]))
		if err != nil {
			return err
		}
		fmt.Println(state.SerializedOutput)
	case "query":
		state, err := taskHub.FetchOrchestrationMetadata(ctx, api.InstanceID(arguments[4]))
		if err != nil {
			return err
		}
		fmt.Println(state.RuntimeStatus)
	case "work":
		return work(ctx, taskHub, arguments[4])
	default:
		return fmt.Errorf("unknown: %s", arguments[3])
	}
	return nil
}

// work runs orchestration two_steps, which calls activity step twice. Each run of the orchestrator's code and of the activity adds a
// line to episodes or activities in the folder. While the folder holds a file hold-episode or hold-activity, whatever begins there
// stays.
func work(ctx context.Context, taskHub *client.TaskHubGrpcClient, folder string) error {
	registry := task.NewTaskRegistry()
	err := registry.AddOrchestratorN("two_steps", func(ctx *task.OrchestrationContext) (any, error) {
		note(folder, "episodes", "hold-episode")
		number := 1
		for step := 0; step < 2; step++ {
			if err := ctx.CallActivity("step", task.WithActivityInput(number)).Await(&number); err != nil {
				return nil, err
			}
		}
		return number, nil
	})
	if err != nil {
		return err
	}
	err = registry.AddActivityN("step", func(ctx task.ActivityContext) (any, error) {
		note(folder, "activities", "hold-activity")
		var number int
		err := ctx.GetInput(&number)
		return number + 1, err
	})
	if err != nil {
		return err
	}
	if err := taskHub.StartWorkItemListener(ctx, registry); err != nil {
		return err
	}
	fmt.Println("working")
	select {}
}

func note(folder, what, hold string) {
	file, err := os.OpenFile(filepath.Join(folder, what), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(file, "run")
	file.Close()
	for {
		if _, err := os.Stat(filepath.Join(folder, hold)); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
