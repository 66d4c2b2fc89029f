const PATHS = {
  plus: "M12 5v14M5 12h14",
  compass: "M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18zM15.5 8.500l-2 5-5 2 2-5z",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  leave: "M14 4h4a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-4M10 8l-4 4 4 4M6 12h9",
  logout: "M10 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h4M15 8l4 4-4 4M19 12H9",
  send: "M5 12h13M12.500 6l6 6-6 6",
  down: "M12 5v13M6 12.500l6 6 6-6",
  alert: "M12 8v5M12 16.500v.01M12 3.500l9.500 16.500h-19z",
};

/** A line drawing. Says nothing to screen readers: the button has the words. */
export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
