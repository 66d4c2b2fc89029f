import { Link, Navigate, useLocation } from "react-router";
import { AuthForm, comesFrom } from "../components/AuthForm";
import { Field } from "../components/Field";
import { useAuth, useSelect } from "../context/AuthContext";

export function LoginPage() {
  const { user, login } = useAuth();
  const notice = useSelect((state) => state.notice);
  const { state } = useLocation();
  if (user) return <Navigate to={comesFrom(state)} replace />;
  return (
    <AuthForm
      title="Welcome back"
      lead="Log in to go on talking."
      notice={notice}
      action="Log in"
      onSubmit={(field) => login(field("email"), field("password"))}
      footer={
        <>
          New here?{" "}
          <Link to="/register" state={state}>
            Create an account
          </Link>
        </>
      }
    >
      <Field label="Email" name="email" type="email" autoComplete="username" maxLength={254} required autoFocus />
      <Field
        label="Password"
        name="password"
        type="password"
        autoComplete="current-password"
        maxLength={512}
        required
      />
    </AuthForm>
  );
}
