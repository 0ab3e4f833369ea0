"""Layer 4, the stages: Faust applications, one stage a file. Each is a thin shell: pull, ask policy, act.

May import schemas, policy and connectors. A stage gets everything it works with handed in (`context.StageContext`),
and handles one record at a time; `pool` runs many of them at once, `faust_app` feeds it, `worker` starts and stops.
"""
