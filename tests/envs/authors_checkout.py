"""A made-up checkout with the file names and variable names of the authors' repository, in other words."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "prompt_lib/prompts.py": '''
Q_GeneralPoint_EQN_L = """
Game of {target_number}. Costs 5$.
Hold: {cards}; {face_card_msg}
{{"cards": [..]}}

"""
Q_GeneralPoint_EQN_L_EG = """For instance 1+2. Hold: {cards}; {face_card_msg} {target_number}"""
Q_GeneralPoint_EQN_VL = """
Look and make {target_number}; {face_card_msg} """
Q_GeneralPoint_EQN_VL_EG = """For instance 1+2; {face_card_msg} {target_number}"""
ResponseEqn = """
{{ "cards": {cards}, "number": {numbers}, "formula": "{formula}" }}"""
Q_VIRL_L = """
Walk.
{instruction}
Moves: {action_space}
Log:
{obs_act_seq}
{{"action": ..}}
"""
Q_VIRL_L_EG = """For instance stop. {instruction} {action_space} {obs_act_seq}"""
Q_VIRL_VL = """
Watch.
{instruction}
{action_space}
{obs_act_seq}"""
Q_VIRL_VL_EG = """For instance stop. {instruction} {action_space} {obs_act_seq}"""
ResponseVIRL = """
{{"current observation": "{current_observation}", "current instruction": "{current_instruction}",
"action": "{action}"}}
"""
raise SystemExit("a checkout is read, never run")
''',
    "utils_rl.py": '''
import no_such_package

def aggregate_fn(message_list):
    return ' / '.join(message_list) + '!'

def step_rewards(card_nums, current_formula, solutions, language_only=True):
    if not language_only:
        return REWARD_FN["INCORRECT_VISION"], "other cards lie there"
    stepper = StepResult(0, [])
    stepper.add(REWARD_FN["ILLEGAL_FORMULA"], "odd signs")
    if True:
        stepper.add(REWARD_FN["ILLEGAL_FORMULA"], "odd number")
    elif False:
        stepper.add(REWARD_FN["ILLEGAL_FORMULA"], "odd operator")
    stepper.add(REWARD_FN["ILLEGAL_FORMULA"], "odd '('")
    stepper.add(REWARD_FN["ILLEGAL_FORMULA"], "nothing to close")
    stepper.add(REWARD_FN["ILLEGAL_FORMULA"], "odd ')'")
    stepper.add(REWARD_FN["ILLEGAL_FORMULA"], "odd token")
    stepper.add(REWARD_FN["INCORRECT_NUMBER"], f"foreign {invalid_numbers}")
    stepper.add(REWARD_FN["INCORRECT_NUMBER"], f"more than once {overused_numbers} there")
    stepper.add(REWARD_FN["INCORRECT_NUMBER"], f"left {underused_numbers}")
    stepper.add(REWARD_FN["CORRECT_SOLUTION"], "fine")
    stepper.add(REWARD_FN["PARTIAL_SOLUTION"], "unfinished")
    stepper.add(REWARD_FN["NO_SOLUTION"], "no way begins so")
    stepper.add(REWARD_FN["NO_SOLUTION"], f"{prev_register} was on a way")
    return stepper

def set_str_action_space(env_config):
    if "cards" in env_config.id:
        ACTION_SPACE = ['delete']
    elif getattr(env_config, 'absolute_action', True):
        ACTION_SPACE = """go or "turn_direction(x)", x: ['north']"""
    else:
        ACTION_SPACE = """go or "turn_direction(x)", x: ['left']"""
    return ACTION_SPACE

def step_rewards_virl(raw_output, gt_action, gt_obs, gt_instruction):
    stepper = StepResult(0, [])
    format_token = """
{{form}} $"""
    if output_action == gt_action:
        stepper.add(REWARD_FN_VIRL["CORRECT_ACTION"], "fine")
    else:
        if True:
            stepper.add(REWARD_FN_VIRL["INCORRECT_OBS"], "no crossing here:" + format_token)
        elif True:
            stepper.add(REWARD_FN_VIRL["INCORRECT_OBS"], "a crossing here:" + format_token)
        stepper.add(REWARD_FN_VIRL["INCORRECT_ACTION"], "another move:" + format_token)
    return stepper
''',
    "evaluation/evaluator/base_evaluator.py": """
class BaseEvaluator:
    def formulate_oracle_arguments(self):
        self.oracle_arguments['face_card_msg'] = "faces are ten" if self.treat_face_cards_as_10 \\
            else "faces are 11, 12, 13"
""",
    "evaluation/evaluator/llama_evaluator.py": """
class LlamaEvaluator:
    def formulate_prompt(self, info):
        if 'gym_cards' in self.id:
            self.payload.append({"text": f"Not so: {info['Verify Info']}"})
        else:
            self.payload.append({"text": f"Not so: {info['Verify Info']}"})
""",
    "gym/gym_virl/envs/navigation_environment.py": """
class NavigationEnvironment(gym.Env):
    def _parse_instruction_and_rail(self):
        parsed_instruction = []
        for idx, intersection_dict in enumerate(intersection_dict_list):
            landmark = intersection_dict.get('landmarks', "Nothing here")
            if idx == len(intersection_dict_list) - 1:
                parsed_instruction.append("Then " + relative_heading + ", to " + next_heading)
                parsed_instruction.append("Arrive where " + landmark + ".")
            else:
                first_msg = "Begin" if idx == 0 else "Then"
                if landmark == "Nothing here":
                    parsed_instruction.append(f"{first_msg} " + relative_heading + ", to " + next_heading)
                    parsed_instruction.append("Go on.")
                else:
                    parsed_instruction.append(f"{first_msg} " + relative_heading + ", to " + next_heading)
                    parsed_instruction.append("Go on to where " + landmark + ".")
        str_instruction = ""
        for idx, instr in enumerate(parsed_instruction):
            str_instruction += f"{idx + 1}) {instr}\\n"
        self.gt_rail_info.append({
            'observation': landmark_list[idx],
            'intersection_observation': "An intersection lies here" if (idx != 0) else "",
        })

    def get_observation_action_sequence(self, action_list, observation_list):
        previous_observations = ""
        for i, (action, observation) in enumerate(zip(action_list, observation_list)):
            previous_observations += f"saw{i + 1} {observation}\\n"
            previous_observations += f"did{i + 1} {action}\\n"
        if len(observation_list) > len(action_list):
            if not self.language_only:
                previous_observations += f"saw{len(observation_list)} four views; {inter}\\n"
                previous_observations += f"did{len(observation_list)} \\n"
            else:
                previous_observations += f"saw{len(observation_list)} {observation_list[-1]}\\n"
                previous_observations += f"did{len(observation_list)} \\n"
        return previous_observations
""",
}


def write_checkout(folder: Path) -> Path:
    """Write it."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
