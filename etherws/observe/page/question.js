// A question before something that cannot be undone: a dialog with the answer "Cancel" at hand.

import { setText } from "./format.js";

export class Question {
  /** Of the dialog `id`; `act(subject, seconds)` does it, and throws an Error if it cannot. */
  constructor(id, act) {
    this.dialog = document.getElementById(id);
    this.act = act;
    const part = (name) => this.dialog.querySelector(name);
    this.error = part(".error");
    this.confirm = part(".confirm");
    part(".cancel").addEventListener("click", () => this.dialog.close());
    this.confirm.addEventListener("click", () => this.go(Number(part("select").value)));
  }

  open(subject) {
    this.subject = subject;
    setText(this.error, "");
    this.confirm.disabled = false;
    this.dialog.showModal();
  }

  async go(seconds) {
    this.confirm.disabled = true;
    try {
      await this.act(this.subject, seconds);
      this.dialog.close();
    } catch (error) {
      setText(this.error, error.message);
      this.confirm.disabled = false;
    }
  }
}
