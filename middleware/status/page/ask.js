// What is asked of the gateway, and first of the person: what hurts is asked about in words that say what will happen.

import { $, say, show } from './words.js';

export let model = { state: null, history: new Map() }; // the last state and history

export const backend = (id) => model.state?.backends.find((b) => b.id === id);

// call asks the gateway to do something, and returns what it answers or throws its error.
export async function call(path, body) {
  const request = body === undefined ? {} : { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(`api/${path}`, request);
  } catch {
    throw new Error('The gateway can’t be reached.');
  }
  const text = await answer.text();
  let said = {};
  try {
    said = JSON.parse(text);
  } catch {
    // an answer of something between here and the gateway
  }
  if (!answer.ok) throw new Error(said.error || text.trim() || `The gateway answers ${answer.status}.`);
  return said;
}

let fading;
export function toast(text) {
  const box = $('toast');
  say(box, text);
  if (box.matches(':popover-open')) box.hidePopover();
  box.showPopover(); // above an open dialog
  clearTimeout(fading);
  fading = setTimeout(() => box.hidePopover(), 6000);
}

let question; // that is open

// ask opens a dialog and runs what it asks for if the answer is yes. The text is a function because the numbers in it
// go on changing while somebody reads. With field {label, value, options} it has a field: a list if there are options.
export function ask({ title, text, warning, yes, hurts, field, run }) {
  question = { text, warning, run, field };
  say($('ask-title'), title);
  say($('ask-yes'), yes);
  $('ask-yes').classList.toggle('danger', Boolean(hurts));
  show($('ask-field'), Boolean(field));
  if (field) {
    say($('ask-label'), field.label);
    show($('ask-select'), Boolean(field.options));
    show($('ask-input'), !field.options);
    if (field.options) $('ask-select').replaceChildren(...field.options.map(([value, label]) => new Option(label, value)));
    (field.options ? $('ask-select') : $('ask-input')).value = field.value;
  }
  show($('ask-error'), false);
  $('ask-yes').disabled = false;
  refreshQuestion();
  $('ask').showModal();
  (field ? (field.options ? $('ask-select') : $('ask-input')) : $('ask-no')).focus();
}

const chosen = () => question.field && (question.field.options ? $('ask-select') : $('ask-input')).value;

// updateQuestion renews what an open question says.
export function updateQuestion(now) {
  model = now;
  refreshQuestion();
}

function refreshQuestion() {
  if (!question) return;
  say($('ask-text'), question.text(chosen()));
  const warning = question.warning?.() ?? '';
  show($('ask-warn'), warning !== '');
  say($('ask-warn'), warning);
}

export function startQuestions() {
  $('ask-select').onchange = refreshQuestion;
  $('ask-input').oninput = refreshQuestion;
  $('ask-no').onclick = () => $('ask').close();
  $('ask').onclose = () => {
    if (!$('ask').open) question = undefined; // the event comes late: the next question may be open already
  };
  $('ask-form').onsubmit = async (event) => {
    event.preventDefault();
    const asked = question;
    $('ask-yes').disabled = true;
    try {
      const done = await asked.run(chosen());
      if (question === asked) $('ask').close();
      if (done) toast(done);
    } catch (error) {
      if (question !== asked) return toast(error.message);
      $('ask-yes').disabled = false;
      show($('ask-error'), true);
      say($('ask-error'), error.message);
    }
  };
}

// tell carries out what needs no question.
export async function tell(run) {
  try {
    toast(await run());
  } catch (error) {
    toast(error.message);
  }
}
