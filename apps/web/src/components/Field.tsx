import { type InputHTMLAttributes, useId } from "react";

/** A labelled input, with a hint below it. */
export function Field({
  label,
  hint,
  ...input
}: { label: string; hint?: string } & InputHTMLAttributes<HTMLInputElement>) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input id={id} aria-describedby={hint ? `${id}-hint` : undefined} {...input} />
      {hint && (
        <small id={`${id}-hint`} className="hint">
          {hint}
        </small>
      )}
    </div>
  );
}

/** Why something did not work; told to screen readers at once. */
export function Problem({ text }: { text: string | null }) {
  return (
    <div role="alert" className="problem-slot">
      {text && <p className="problem">{text}</p>}
    </div>
  );
}
